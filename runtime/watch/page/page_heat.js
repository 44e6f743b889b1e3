// Draws the heatmap of a state as Result.overlay does: smoothly, from the scale's floor on, full opacity from halfway
// to the full colour on. Nothing here knows the page.
"use strict";

const FINE = 16; // steps per patch of a drawn heatmap
const MOST_FINE = 640; // steps in each direction: the heatmap of many tiles has many patches

// A transparent picture of a size, to be laid over the frame, and the numbers of its scale in logits per patch.
// colours: tables of 256 for evidence, for and against. opacity: 0 to 1. fine: steps per patch.
function heatLayer(state, width, height, colours, { signed, opacity, fine = FINE }) {
  const layer = new OffscreenCanvas(width, height), heat = layer.getContext("2d");
  const { frame_size: [frameHeight, frameWidth] } = state;
  const scaleX = width / frameWidth, scaleY = height / frameHeight;
  drawEdge(heat, state, scaleX, scaleY);
  const { heatmap, area: [top, left, bottom, right] } = trimmed(state);
  const smoothed = smooth(heatmap, fine);
  const scale = scaleOf(state, heatmap, smoothed, signed);
  heat.imageSmoothingQuality = "high";
  heat.save();
  heat.scale(scaleX, scaleY);
  if (state.roi?.length) heat.clip(outline(state.roi));
  heat.drawImage(tinted(smoothed, scale, colours, signed, opacity), left, top, right - left, bottom - top);
  heat.restore();
  drawOutlines(heat, state, scaleX, scaleY);
  return { layer, ...scale };
}

// The evidence where colours begin and where they are full; shows: whether any of this heatmap is painted.
function scaleOf(state, heatmap, smoothed, signed) {
  const { frame_size: [height, width], scale } = state;
  const size = (value) => (signed ? Math.abs(value) : value);
  let { floor, full } = scale;
  if (floor === "median") {
    // Outside of the regions of interest there is none.
    const counted = heatmap.flat().filter((value) => value !== 0 || !state.roi?.length);
    floor = counted.length ? Math.max(median(counted.map(size)), 0) : 0;
  }
  const { area } = trimmed(state);
  const rows = occupied(area[0], area[2], height, smoothed.length);
  const columns = occupied(area[1], area[3], width, smoothed[0].length);
  let strongest = 0;
  for (let y = rows.first; y < rows.stop; y++) {
    for (let x = columns.first; x < columns.stop; x++) strongest = Math.max(strongest, size(smoothed[y][x]));
  }
  if (full === null) full = strongest;
  else floor = Math.min(floor, 0.9 * full);
  // The same evidence everywhere is no more than its median but for rounding.
  return { floor, full, shows: Math.min(full, strongest) - floor > 1e-5 * full };
}

function tinted(smoothed, { floor, full, shows }, colours, signed, opacity) {
  const small = new OffscreenCanvas(smoothed[0].length, smoothed.length);
  const image = new ImageData(small.width, small.height), pixels = image.data;
  const positive = signed ? colours.for : colours.evidence;
  for (let y = 0, at = 0; shows && y < small.height; y++) {
    for (let x = 0; x < small.width; x++, at += 4) {
      const value = smoothed[y][x], size = signed ? Math.abs(value) : value;
      if (size <= floor) continue;
      const strength = Math.min(1, (size - floor) / (full - floor));
      const colour = (value < 0 ? colours.against : positive)[Math.trunc(255 * strength)];
      pixels[at] = colour[0];
      pixels[at + 1] = colour[1];
      pixels[at + 2] = colour[2];
      pixels[at + 3] = 255 * opacity * Math.min(1, 2 * strength);
    }
  }
  small.getContext("2d").putImageData(image, 0, 0);
  return small;
}

// A white and a black line around what the model saw, where the picture goes on, as Result.overlay draws them.
function drawEdge(heat, { seen, roi, frame_size: [height, width] }, scaleX, scaleY) {
  if (Math.min(height, width) < 128) return;
  const line = Math.max(1, Math.round(Math.min(height * scaleY, width * scaleX) / 500));
  const top = Math.floor(seen[0] * scaleY), left = Math.floor(seen[1] * scaleX);
  const bottom = Math.ceil(seen[2] * scaleY), right = Math.ceil(seen[3] * scaleX);
  const inside = roi?.length
    ? outline(roi.map((corners) => corners.map(([x, y]) => [x * scaleX, y * scaleY])))
    : outline([[[left, top], [right, top], [right, bottom], [left, bottom]]]);
  for (const [colour, around] of [["black", 2 * line], ["white", line]]) {
    heat.strokeStyle = colour;
    heat.lineWidth = 2 * around;
    heat.stroke(inside);
  }
  heat.globalCompositeOperation = "destination-out";
  heat.fill(inside);
  heat.globalCompositeOperation = "source-over";
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
function drawOutlines(heat, { outlines, tiles = [] }, scaleX, scaleY) {
  heat.strokeStyle = heat.fillStyle = "rgb(255 255 255 / 45%)";
  heat.lineWidth = 1;
  heat.stroke(outline(outlines.map((corners) => corners.map(([x, y]) => [x * scaleX, y * scaleY]))));
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

// A heatmap on a grid up to `fine` times as fine, by the filter of Mitchell and Netravali; see upsampling.py.
function smooth(heatmap, fine) {
  const steps = Math.max(1, Math.min(fine, Math.floor(MOST_FINE / Math.max(heatmap.length, heatmap[0].length))));
  const rows = filters(heatmap.length, steps), columns = filters(heatmap[0].length, steps);
  const across = heatmap.map((row) => Float32Array.from(columns, (taps) => mixed(taps, (at) => row[at])));
  return rows.map((taps) => {
    const row = new Float32Array(columns.length);
    for (const [at, weight] of taps) {
      for (let x = 0; x < row.length; x++) row[x] += weight * across[at][x];
    }
    return row;
  });
}

function mixed(taps, value) {
  let sum = 0;
  for (const [at, weight] of taps) sum += weight * value(at);
  return sum;
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
