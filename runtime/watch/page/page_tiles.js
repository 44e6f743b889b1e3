// Several sources side by side: a tile each, which puts its source on the stage.
"use strict";

function makeTiles() {
  $("sources").hidden = false;
  $("sources").replaceChildren(...views.map((view, number) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "tile";
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [320, 180];
    canvas.setAttribute("aria-hidden", "true");
    const name = document.createElement("span");
    name.className = "source";
    name.textContent = about.sources[number].name;
    const answer = document.createElement("span");
    const speed = document.createElement("span");
    speed.className = "quiet";
    button.append(canvas, name, answer, speed);
    button.addEventListener("click", () => choose(number));
    view.tile = { button, canvas, answer, speed };
    return button;
  }));
}

function drawTile({ state, bitmap, tile }) {
  tile.speed.textContent = state.state === "running" ? `${state.meter.rate.toFixed(1)} frames/s` : state.state;
  tile.speed.title = state.note;
  tile.button.classList.toggle("trouble", state.state === "reconnecting" || (state.state === "ended" && bitmap === null));
  if (bitmap === null) {
    tile.answer.textContent = state.note;
    return;
  }
  tile.answer.textContent = scored(state);
  tile.button.dataset.decision = decisionOf(state) ?? "";
  drawSmall(tile.canvas, state, bitmap);
}

// Picture and heatmap in the middle of a small canvas.
function drawSmall(canvas, state, bitmap) {
  const share = Math.min(canvas.width / bitmap.width, canvas.height / bitmap.height);
  const width = Math.max(1, Math.round(share * bitmap.width)), height = Math.max(1, Math.round(share * bitmap.height));
  const left = (canvas.width - width) / 2, top = (canvas.height - height) / 2;
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, left, top, width, height);
  const options = { signed: $("against").checked, opacity: Number($("opacity").value) / 100, fine: 4 };
  context.drawImage(heatLayer(state, width, height, about.colours, options).layer, left, top);
}
