// Asks for one state after the other, draws the picture and, over it, the heatmap. Opacity and colours are the
// browser's own business; which class is explained is asked of the stream.
"use strict";

const $ = (id) => document.getElementById(id);
const FINE = 16; // steps per patch of the drawn heatmap
const MOST_FINE = 640; // steps in each direction: the heatmap of many tiles has many patches
let about = null;
let current = null; // the newest state that is on the page
let version = -1;
let frozen = false;

async function start() {
  about = await asked("about");
  $("about").textContent = `${about.model} on ${about.provider} · ${about.sources[0].name} · ${about.sources[0].policy} frame`;
  document.title = `edgex watch · ${about.model}`;
  $("classes").replaceChildren(...about.classes.map((name) => {
    const option = document.createElement("option");
    option.value = name;
    return option;
  }));
  drawScale();
  for (;;) {
    try {
      const answer = await fetch(`frame?after=${version}`);
      if (answer.status === 200) await show(await answer.arrayBuffer());
      else if (answer.status !== 204) throw new Error(answer.statusText);
    } catch {
      setState("lost", "disconnected");
      await new Promise((done) => setTimeout(done, 1000));
    }
  }
}

// JSON from the server, as soon as there is an answer; what it says instead is shown.
async function asked(address) {
  for (;;) {
    try {
      const answer = await fetch(address);
      if (answer.ok) return await answer.json();
      $("about").textContent = await answer.text();
    } catch {
      $("about").textContent = "the server does not answer";
    }
    await new Promise((done) => setTimeout(done, 1000));
  }
}

async function show(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const state = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  version = state.version;
  setState(state.state, state.state);
  $("note").textContent = state.note;
  $("note").hidden = !state.note;
  $("note").className = state.state === "ended" ? "" : "trouble";
  showMeter(state.meter);
  const picture = new Uint8Array(buffer, 4 + length);
  if (frozen || picture.length === 0) return;
  const bitmap = await createImageBitmap(new Blob([picture], { type: "image/jpeg" }));
  current = state;
  $("waiting").hidden = true;
  for (const id of ["frame", "heat"]) {
    if ($(id).width !== bitmap.width) $(id).width = bitmap.width;
    if ($(id).height !== bitmap.height) $(id).height = bitmap.height;
  }
  $("frame").getContext("2d").drawImage(bitmap, 0, 0);
  bitmap.close();
  drawHeat();
  showClasses();
}

function setState(kind, text) {
  if ($("state").textContent === text) return;
  $("state").textContent = text;
  $("state").className = `badge ${kind}`;
}

function showMeter(meter) {
  const ms = (value) => `${value.toFixed(1)} ms`;
  $("rate").textContent = meter.rate.toFixed(1);
  $("frames").textContent = meter.frames.toLocaleString("en");
  $("dropped").textContent = meter.dropped.toLocaleString("en");
  if (meter.latency === null) return;
  const { p50, p95, p99 } = meter.latency;
  $("percentiles").textContent = `${p50.toFixed(0)} / ${p95.toFixed(0)} / ${p99.toFixed(0)} ms`;
  $("model").textContent = ms(meter.model.p50);
}

const percent = (score) => `${(100 * score).toFixed(1)}%`;

function showClasses() {
  // present: positions of the labels that are there, of a model that decides each class by itself.
  const { top, explained, index, present } = current;
  const list = $("top");
  while (list.children.length < top.length) {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    const name = document.createElement("span");
    const share = document.createElement("span");
    share.className = "share";
    button.append(name, share);
    button.addEventListener("click", () => ask(Number(button.dataset.index)));
    item.append(button);
    list.append(item);
  }
  top.forEach(([number, probability], place) => {
    const button = list.children[place].firstElementChild;
    const percentage = percent(probability);
    button.dataset.index = number;
    button.children[0].textContent = about.classes[number];
    button.children[1].textContent = percentage;
    button.style.setProperty("--share", percentage);
    button.setAttribute("aria-pressed", String(number === explained.index));
    button.classList.toggle("absent", present !== undefined && !present.includes(number));
  });
  $("explained").textContent = explained.label;
  let role = "the predicted class";
  if (present !== undefined) {
    role = `${present.includes(explained.index) ? "present" : "not present"}, ${percent(explained.score)}`;
  } else if (explained.index !== index) {
    role = `not predicted: ${percent(explained.score)} against ${percent(current.score)}`;
  }
  $("evidence").textContent = `${current.asked === null ? "Follows the prediction" : "Asked for"}: ${role}.`;
  $("predicted").disabled = current.asked === null;
  $("latency").textContent = `${current.latency_ms.toFixed(1)} ms`;
  $("name").textContent = current.name;
  const label = `Picture ${current.frame + 1}: ${current.label}, with the evidence for ${explained.label}`;
  $("frame").setAttribute("aria-label", label);
}

// As Result.overlay draws it: smoothly, from the median on, full opacity from half of the strongest evidence on.
function drawHeat() {
  if (current === null) return;
  const { frame_size: [height, width] } = current;
  const { heatmap, area: [top, left, bottom, right] } = trimmed(current);
  const signed = $("against").checked;
  const opacity = Number($("opacity").value) / 100;
  const size = (value) => (signed ? Math.abs(value) : value);
  const fine = smooth(heatmap);
  const small = new OffscreenCanvas(fine[0].length, fine.length);
  const image = new ImageData(small.width, small.height);
  const table = signed ? about.colours.for : about.colours.evidence;
  // Outside of the regions of interest there is none.
  const counted = heatmap.flat().filter((value) => value !== 0 || !current.roi?.length);
  const floor = counted.length ? Math.max(median(counted.map(size)), 0) : 0;
  const fineRows = occupied(top, bottom, height, fine.length), fineColumns = occupied(left, right, width, fine[0].length);
  const seen = fine.slice(fineRows.first, fineRows.stop).map((row) => row.slice(fineColumns.first, fineColumns.stop));
  const strongest = Math.max(...seen.map((row) => Math.max(...row.map(size))));
  // The same evidence everywhere is no more than its median but for rounding.
  const shows = strongest - floor > 1e-5 * strongest;
  for (let y = 0; shows && y < small.height; y++) {
    for (let x = 0; x < small.width; x++) {
      const value = fine[y][x];
      if (size(value) <= floor) continue;
      const strength = Math.min(1, (size(value) - floor) / (strongest - floor));
      const colour = (value < 0 ? about.colours.against : table)[Math.trunc(255 * strength)];
      image.data.set([...colour, 255 * opacity * Math.min(1, 2 * strength)], 4 * (y * small.width + x));
    }
  }
  small.getContext("2d").putImageData(image, 0, 0);
  const heat = $("heat").getContext("2d");
  const scaleX = $("heat").width / width, scaleY = $("heat").height / height;
  heat.clearRect(0, 0, $("heat").width, $("heat").height);
  heat.imageSmoothingQuality = "high";
  heat.save();
  heat.scale(scaleX, scaleY);
  if (current.roi?.length) heat.clip(outline(current.roi));
  heat.drawImage(small, left, top, right - left, bottom - top);
  heat.restore();
  drawBorder(heat, scaleX, scaleY);
  drawOutlines(heat, scaleX, scaleY);
}

// A black and a white line around what the model saw, where the picture goes on, as Result.overlay draws them.
function drawBorder(heat, scaleX, scaleY) {
  const { seen, frame_size: [height, width] } = current;
  if (Math.min(height, width) < 128) return;
  const top = Math.floor(seen[0] * scaleY), left = Math.floor(seen[1] * scaleX);
  const bottom = Math.ceil(seen[2] * scaleY), right = Math.ceil(seen[3] * scaleX);
  const line = Math.max(1, Math.round(Math.min(height * scaleY, width * scaleX) / 500));
  for (const [colour, around] of [["black", 2 * line], ["white", line]]) {
    heat.fillStyle = colour;
    heat.fillRect(left - around, top - around, right - left + 2 * around, around);
    heat.fillRect(left - around, bottom, right - left + 2 * around, around);
    heat.fillRect(left - around, top, around, bottom - top);
    heat.fillRect(right, top, around, bottom - top);
  }
}

// The patches that show some of the frame, and where they lie in it; the others lie wholly in the padding.
function trimmed({ heatmap, input_area: [top, left, bottom, right], frame_size: [height, width] }) {
  const rows = occupied(top, bottom, height, heatmap.length), columns = occupied(left, right, width, heatmap[0].length);
  return {
    heatmap: heatmap.slice(rows.first, rows.stop).map((row) => row.slice(columns.first, columns.stop)),
    area: [rows.start, columns.start, rows.end, columns.end],
  };
}

// Of one direction; start and end: of all cells, in pixels of a frame of this size.
function occupied(start, end, size, cells) {
  const cell = (end - start) / cells;
  const first = Math.floor(Math.max(-start, 0) / cell + 1e-6);
  const stop = Math.ceil((Math.min(end, size) - start) / cell - 1e-6);
  return { first, stop, start: start + first * cell, end: start + stop * cell };
}

// Thin lines around tiles and regions of interest; in each tile how probable the explained class is there.
function drawOutlines(heat, scaleX, scaleY) {
  const { outlines, tiles = [] } = current;
  heat.strokeStyle = heat.fillStyle = "rgb(255 255 255 / 45%)";
  heat.lineWidth = 1;
  const scaled = outlines.map((corners) => corners.map(([x, y]) => [x * scaleX, y * scaleY]));
  heat.stroke(outline(scaled));
  heat.font = "11px sans-serif";
  heat.textBaseline = "top";
  for (const { box: [top, left], explained_score: score } of tiles) {
    heat.fillText(`${(100 * score).toFixed(0)}%`, left * scaleX + 4, top * scaleY + 4);
  }
}

function outline(polygons) {
  const path = new Path2D();
  for (const corners of polygons) {
    corners.forEach(([x, y], number) => (number ? path.lineTo(x, y) : path.moveTo(x, y)));
    path.closePath();
  }
  return path;
}

// A heatmap on a grid up to FINE times as fine, by the filter of Mitchell and Netravali; see upsampling.py.
function smooth(heatmap) {
  const steps = Math.max(1, Math.min(FINE, Math.floor(MOST_FINE / Math.max(heatmap.length, heatmap[0].length))));
  const rows = filters(heatmap.length, steps), columns = filters(heatmap[0].length, steps);
  const across = heatmap.map((row) => columns.map((taps) => taps.reduce((sum, [at, weight]) => sum + weight * row[at], 0)));
  return rows.map((taps) => columns.map((_, x) => taps.reduce((sum, [at, weight]) => sum + weight * across[at][x], 0)));
}

// Of each fine position, the cells that it is made of and their weights.
function filters(cells, steps) {
  return Array.from({ length: cells * steps }, (_, fine) => {
    const position = Math.min(Math.max((fine + 0.5) / steps - 0.5, 0), cells - 1);
    const low = Math.floor(position);
    return [-1, 0, 1, 2].map((next) => {
      const distance = Math.abs(position - low - next);
      const value = distance < 1
        ? 7 * distance ** 3 - 12 * distance ** 2 + 16 / 3
        : -7 / 3 * distance ** 3 + 12 * distance ** 2 - 20 * distance + 32 / 3;
      return [Math.min(Math.max(low + next, 0), cells - 1), value / 6];
    });
  });
}

function median(values) {
  const sorted = values.sort((one, other) => one - other), middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

function drawScale() {
  const signed = $("against").checked;
  const { evidence, for: positive, against } = about.colours;
  const table = signed ? [...against].reverse().filter((_, i) => i % 2).concat(positive.filter((_, i) => i % 2)) : evidence;
  const image = new ImageData(256, 1);
  table.slice(0, 256).forEach((colour, i) => image.data.set([...colour, 255], 4 * i));
  $("scale").getContext("2d").putImageData(image, 0, 0);
  $("low").textContent = signed ? "against" : "none";
  $("high").textContent = signed ? "for" : "strongest";
}

async function ask(number) {
  $("problem").textContent = "";
  frozen = false;
  $("freeze").setAttribute("aria-pressed", "false");
  try {
    const answer = await fetch("explain", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ class: number }),
    });
    if (!answer.ok) $("problem").textContent = await answer.text();
  } catch {
    $("problem").textContent = "The question did not arrive: the server does not answer.";
  }
}

$("opacity").addEventListener("input", () => {
  $("opacity-value").textContent = `${$("opacity").value}%`;
  drawHeat();
});
$("against").addEventListener("change", () => { drawScale(); drawHeat(); });
$("freeze").addEventListener("click", () => {
  frozen = !frozen;
  $("freeze").setAttribute("aria-pressed", String(frozen));
});
$("predicted").addEventListener("click", () => ask(null));
$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const wanted = $("wanted").value.trim();
  if (wanted) ask(wanted);
});
start();
