// Asks for one state after the other and shows it. Opacity and colours are the browser's own business; which class is
// explained is asked of the stream, or, of a frozen picture, of that picture alone.
"use strict";

const $ = (id) => document.getElementById(id);
const NO_ANSWER = "The server does not answer. Is edgex watch still running?";
const SPOKEN = 2000; // ms between two classes that are read aloud
let about = null;
let views = []; // of each source: { state, bitmap, tile }
let chosen = 0; // the source on the stage
let current = null; // the state on the stage
let version = -1;
let frozen = null; // { state, bitmap, ready }; ready: when the server has said how it calls the picture
let automatic = false; // whether a question switched the evidence against on
let spoken = { label: "", moment: -SPOKEN };

const percent = (score) => `${(100 * score).toFixed(1)}%`;
const ms = (value) => (value < 10000 ? `${value.toFixed(value < 100 ? 1 : 0)} ms` : `${(value / 1000).toFixed(0)} s`);

async function start() {
  about = await asked("about");
  document.title = `edgex watch · ${about.model}`;
  views = about.sources.map(() => ({ state: null, bitmap: null, tile: null }));
  if (views.length > 1) makeTiles();
  $("classes").replaceChildren(...about.classes.map((name) => {
    const option = document.createElement("option");
    option.value = name;
    return option;
  }));
  $("against").checked = about.signed;
  choose(0);
  drawScale();
  for (let lost = false; ;) {
    try {
      if (lost && (await asJson(await reach("about"))).run !== about.run) {
        // Another run may have another model, and counts its frames and alarms anew.
        location.reload();
        return;
      }
      lost = false;
      const answer = await reach(`frame?after=${version}`);
      if (answer.status === 200) await show(await answer.arrayBuffer());
    } catch (error) {
      lost = true;
      setState("lost", "disconnected");
      if (error.status !== undefined) tell(error.message);
      await new Promise((done) => setTimeout(done, 1000));
    }
  }
}

// JSON from the server, as soon as there is an answer; what it says instead is shown.
async function asked(address) {
  for (;;) {
    try {
      return await asJson(await reach(address));
    } catch (error) {
      $("about").textContent = error.message;
    }
    await new Promise((done) => setTimeout(done, 1000));
  }
}

// An answer, or an error in words for a person.
async function reach(address, options) {
  let answer;
  try {
    answer = await fetch(address, options);
  } catch {
    throw new Error(NO_ANSWER);
  }
  if (answer.ok) return answer;
  throw Object.assign(new Error((await answer.text()).trim() || NO_ANSWER), { status: answer.status });
}

const asJson = (answer) => answer.json();

function post(address, question) {
  return reach(address, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(question),
  });
}

function tell(words) {
  $("trouble").textContent = words;
}

// The parts of an answer; see feed.py.
function partsOf(buffer) {
  const parts = [];
  for (let at = 0; at < buffer.byteLength;) {
    const length = new DataView(buffer).getUint32(at, true);
    const state = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, at + 4, length)));
    const picture = new Uint8Array(buffer, at + 4 + length, state.picture_bytes);
    parts.push({ state, picture: new Blob([picture], { type: "image/jpeg" }) });
    at += 4 + length + state.picture_bytes;
  }
  return parts;
}

async function show(buffer) {
  const arrived = performance.now();
  const parts = partsOf(buffer);
  version = Math.max(...parts.map(({ state }) => state.version));
  for (const { state, picture } of parts) {
    const view = views[state.feed];
    if (picture.size) {
      const before = view.bitmap;
      view.bitmap = await createImageBitmap(picture);
      if (before !== null && before !== frozen?.bitmap) before.close();
      state.age_ms += performance.now() - arrived;
    }
    view.state = state;
    if (view.tile !== null) drawTile(view);
    if (state.feed === chosen) showChosen();
  }
  updateStrip(Math.max(...parts.map(({ state }) => state.events)));
}

// What goes on while a picture is frozen: state, note and times of the source.
function showChosen() {
  const { state, bitmap } = views[chosen];
  if (state === null) return;
  tell("");
  setState(state.state, state.state);
  $("note").textContent = state.note;
  $("note").hidden = !state.note;
  $("note").className = state.state === "ended" ? "" : "trouble";
  const drift = (state.drift ?? []).map(({ message }) => message).join("; ");
  if ($("drift").textContent !== drift) $("drift").textContent = drift;
  $("drift").hidden = !drift;
  showMeter(state);
  if (frozen === null && bitmap !== null) showPicture(state, bitmap);
}

function showPicture(state, bitmap) {
  current = state;
  $("waiting").hidden = true;
  for (const id of ["frame", "heat"]) {
    if ($(id).width !== bitmap.width) $(id).width = bitmap.width;
    if ($(id).height !== bitmap.height) $(id).height = bitmap.height;
  }
  $("frame").getContext("2d").drawImage(bitmap, 0, 0);
  drawHeat();
  showClasses();
}

function choose(number) {
  if (views[number] === undefined) return;
  if (number !== chosen && frozen !== null) unfreeze();
  chosen = number;
  const source = about.sources[chosen];
  $("about").textContent = `${about.model} on ${about.provider} · ${source.name} · ${source.policy} frame`;
  views.forEach(({ tile }, place) => tile?.button.setAttribute("aria-pressed", String(place === chosen)));
  showChosen();
  if (current?.feed === chosen) showAgainst(current.asked);
}

function setState(kind, text) {
  if ($("state").textContent === text) return;
  $("state").textContent = text;
  $("state").className = `badge ${kind}`;
}

function showMeter(state) {
  const { meter } = state;
  $("rate").textContent = meter.rate.toFixed(1);
  $("frames").textContent = meter.frames.toLocaleString("en");
  $("dropped").textContent = meter.dropped.toLocaleString("en");
  if (state.age_ms !== undefined) {
    $("age").textContent = ms(state.age_ms);
    $("queue").textContent = ms(state.queue_ms);
    $("model").textContent = ms(state.model_ms);
  }
  if (meter.latency === null) return;
  [meter.queue, meter.model, meter.latency].forEach((times, row) => {
    const cells = $("times").rows[row].cells;
    [times.p50, times.p95, times.p99].forEach((value, place) => { cells[place + 1].textContent = value.toFixed(1); });
  });
}

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
  while (list.children.length > top.length) list.lastElementChild.remove();
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
  const decision = decisionOf(current);
  $("decision").hidden = decision === undefined;
  $("decision").textContent = $("decision").className = decision ?? "";
  $("explained").textContent = explained.label;
  let role = "the predicted class";
  if (present !== undefined) {
    role = `${present.includes(explained.index) ? "present" : "not present"}, ${percent(explained.score)}`;
  } else if (explained.index !== index) {
    role = `not predicted: ${percent(explained.score)} against ${percent(current.score)}`;
  }
  $("evidence").textContent = `${current.asked === null ? "Follows the prediction" : "Asked for"}, ${role}.`;
  $("predicted").disabled = current.asked === null;
  $("name").textContent = frozen === null ? current.name : `Frozen: ${current.name}`;
  const said = answerOf(current);
  const label = `Picture ${current.frame + 1}: ${said}, with the evidence for ${explained.label}`;
  $("frame").setAttribute("aria-label", label);
  speak(said);
}

// In words: the class, or all labels that are present.
function answerOf({ label, present }) {
  if (present === undefined) return label;
  return present.length ? present.map((number) => about.classes[number]).join(", ") : "no label";
}

// The same with probabilities.
function scored({ label, score, labels = [[label, score]] }) {
  return labels.map(([name, probability]) => `${name} ${percent(probability)}`).join(", ") || "no label";
}

// Read aloud where it changes, but not every frame of a camera that cannot make up its mind.
function speak(said) {
  clearTimeout(spoken.later);
  if (said === spoken.label) return;
  const wait = spoken.moment + SPOKEN - performance.now();
  if (wait > 0) {
    spoken.later = setTimeout(() => speak(said), wait);
    return;
  }
  spoken = { label: said, moment: performance.now() };
  $("spoken").textContent = said;
}

function drawHeat() {
  if (current === null) return;
  const canvas = $("heat"), context = canvas.getContext("2d");
  const options = { signed: $("against").checked, opacity: Number($("opacity").value) / 100 };
  const { layer, floor, full, shows } = heatLayer(current, canvas.width, canvas.height, about.colours, options);
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.drawImage(layer, 0, 0);
  const number = (value) => Number(value.toPrecision(2)).toString();
  const ends = options.signed ? [`against ${number(-full)}`, `for ${number(full)}`] : [number(floor), number(full)];
  [$("low").textContent, $("high").textContent] = shows ? ends : ["–", "–"];
  const { full: fixed, floor: lowest } = current.scale;
  const scale = fixed === null ? "on this picture's own scale" : lowest === "median" ? "on a fixed scale" : "on the calibrated scale";
  $("scale-name").textContent = shows
    ? `Evidence in logits per patch, ${scale}.`
    : `Nothing is painted: no patch stands out beyond ${number(floor)} logits.`;
}

function drawScale() {
  const signed = $("against").checked;
  const { evidence, for: positive, against } = about.colours;
  const table = signed ? [...against].reverse().filter((_, i) => i % 2).concat(positive.filter((_, i) => i % 2)) : evidence;
  const image = new ImageData(256, 1);
  table.slice(0, 256).forEach((colour, i) => image.data.set([...colour, 255], 4 * i));
  $("scale").getContext("2d").putImageData(image, 0, 0);
}

function redraw() {
  drawScale();
  drawHeat();
  for (const view of views) if (view.tile !== null && view.state !== null) drawTile(view);
}

// The picture stays, and the server keeps it to be asked about, while the source goes on.
async function freeze() {
  const { state, bitmap } = views[chosen];
  if (bitmap === null) return;
  const mine = { state, bitmap };
  mine.ready = hold(state).then(async ({ state: held, picture }) => {
    mine.state = held;
    mine.bitmap = await createImageBitmap(picture);
    if (frozen === mine) showPicture(mine.state, mine.bitmap);
  });
  showFrozen(mine);
  try {
    await mine.ready;
  } catch (error) {
    tell(error.message);
  }
}

async function hold(state) {
  const [part] = partsOf(await (await post("hold", { feed: state.feed, version: state.version })).arrayBuffer());
  return part;
}

function showFrozen(picture) {
  frozen = picture;
  $("freeze").textContent = "Unfreeze";
  $("freeze").setAttribute("aria-pressed", "true");
  showPicture(picture.state, picture.bitmap);
}

function unfreeze() {
  frozen = null;
  $("freeze").textContent = "Freeze";
  $("freeze").setAttribute("aria-pressed", "false");
  showChosen();
  if (current !== null) showAgainst(current.asked);
}

async function ask(wanted) {
  $("problem").textContent = "";
  if (current === null) return;
  const picture = frozen;
  try {
    await picture?.ready;
    if (picture !== null && picture.state.held === undefined) {
      throw new Error("This picture is kept as it was shown. Unfreeze to ask about another class.");
    }
    const question = { class: wanted, feed: chosen, ...(picture === null ? {} : { held: picture.state.held }) };
    const answer = await asJson(await post("explain", question));
    showAgainst(answer.asked);
    if (picture === null) return;
    picture.state = answer;
    if (frozen === picture) showPicture(picture.state, picture.bitmap);
  } catch (error) {
    $("problem").textContent = error.message;
  }
}

// Why not a class is answered by what speaks against it.
function showAgainst(number) {
  const predicted = current.present ?? [current.index];
  const whyNot = number !== null && !predicted.includes(number);
  if (whyNot === $("against").checked || (!whyNot && !automatic)) return;
  $("against").checked = automatic = whyNot;
  redraw();
}

function setOpacity(value) {
  $("opacity").value = value;
  $("opacity-value").textContent = `${$("opacity").value}%`;
  redraw();
}

const KEYS = {
  f: () => $("freeze").click(),
  a: () => $("against").click(),
  s: () => save("png"),
  j: () => save("json"),
  0: () => ask(null),
  "/": () => $("wanted").focus(),
  "+": () => setOpacity(Number($("opacity").value) + 10),
  "-": () => setOpacity(Number($("opacity").value) - 10),
  "[": () => choose(chosen - 1),
  "]": () => choose(chosen + 1),
  "?": () => $("help").showModal(),
};

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input:not([type=range], [type=checkbox])");
  if (event.ctrlKey || event.metaKey || event.altKey || typing || $("help").open || about === null) return;
  if (!$("keys").checked && event.key !== "?") return;
  const key = event.key.toLowerCase();
  const action = /^[1-9]$/.test(key) ? () => $("top").querySelectorAll("button")[Number(key) - 1]?.click() : KEYS[key];
  if (action === undefined) return;
  event.preventDefault();
  action();
});

$("opacity").addEventListener("input", () => setOpacity($("opacity").value));
$("against").addEventListener("change", () => { automatic = false; redraw(); });
$("freeze").addEventListener("click", () => (frozen === null ? freeze() : unfreeze()));
$("save-picture").addEventListener("click", () => save("png"));
$("save-json").addEventListener("click", () => save("json"));
$("predicted").addEventListener("click", () => ask(null));
$("open-help").addEventListener("click", () => $("help").showModal());
$("close-help").addEventListener("click", () => $("help").close());
$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const wanted = $("wanted").value.trim();
  if (wanted) ask(wanted);
});
start();
