// The strip of alarms and unsure frames: each entry opens frozen on the stage; two buttons take a verdict.
"use strict";

const DECISIONS = { alarm: "alarm", review: "unsure", ok: "ok" };
// In a person's words; undefined where nothing decides.
const decisionOf = ({ alarms, decision }) => (alarms?.length ? "alarm" : DECISIONS[decision]);
let stripVersion = 0; // of the entries that are on the page
const entries = new Map(); // id -> { state, bitmap }

async function updateStrip(wanted) {
  if (wanted === stripVersion) return;
  stripVersion = wanted;
  try {
    const events = await asJson(await reach("events"));
    $("strip").hidden = events.length === 0;
    for (const id of entries.keys()) if (!events.some((event) => event.id === id)) entries.delete(id);
    // The button that has the keyboard's focus keeps it.
    const { id, role } = document.activeElement?.dataset ?? {};
    $("events").replaceChildren(...events.map(entryOf));
    if (role !== undefined) document.querySelector(`#events [data-id="${id}"][data-role="${role}"]`)?.focus({ preventScroll: true });
  } catch (error) {
    $("strip-problem").textContent = error.message;
  }
}

function entryOf(event) {
  const item = document.createElement("li");
  const alarms = event.alarms ?? [];
  const what = decisionOf(event);
  item.className = what;
  const open = document.createElement("button");
  open.type = "button";
  open.className = "thumb";
  Object.assign(open.dataset, { id: event.id, role: "open" });
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [240, 135];
  const words = document.createElement("span");
  words.textContent = scored(event);
  open.append(canvas, mark(what, alarms), words);
  open.setAttribute("aria-label", `${what}: ${words.textContent}, ${when(event)}; open`);
  open.addEventListener("click", () => openEntry(event.id));
  const line = document.createElement("p");
  line.className = "quiet";
  line.textContent = about.sources.length > 1 ? `${when(event)} · ${event.source}` : when(event);
  item.append(open, line);
  if (about.feedback) item.append(verdicts(event, words.textContent));
  drawEntry(event.id, canvas);
  return item;
}

function mark(what, alarms) {
  const badge = document.createElement("strong");
  badge.textContent = badge.title = alarms.length ? `${what}: ${alarms.join(", ")}` : what;
  return badge;
}

const when = (event) => new Date(event.arrived).toLocaleTimeString("en-GB");

function verdicts(event, words) {
  const row = document.createElement("div");
  row.className = "row";
  for (const [verdict, text] of [["ok", "OK"], ["not-ok", "Not OK"]]) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = text;
    button.setAttribute("aria-label", `${text}: ${words}, ${when(event)}`);
    button.setAttribute("aria-pressed", String(event.verdict === verdict));
    Object.assign(button.dataset, { id: event.id, role: verdict });
    button.addEventListener("click", () => judge(event.id, verdict));
    row.append(button);
  }
  return row;
}

async function judge(id, verdict) {
  $("strip-problem").textContent = "";
  try {
    await post("feedback", { id, verdict });
    stripVersion = -1;
    await updateStrip(views[chosen].state.events);
  } catch (error) {
    $("strip-problem").textContent = error.message;
  }
}

async function entry(id) {
  if (!entries.has(id)) {
    const [part] = partsOf(await (await reach(`event?id=${id}`)).arrayBuffer());
    entries.set(id, { state: part.state, bitmap: await createImageBitmap(part.picture) });
  }
  return entries.get(id);
}

async function drawEntry(id, canvas) {
  try {
    const { state, bitmap } = await entry(id);
    drawSmall(canvas, state, bitmap);
  } catch {
    // It has left the strip meanwhile; the next list lacks it.
  }
}

async function openEntry(id) {
  try {
    const { state, bitmap } = await entry(id);
    choose(state.feed);
    showFrozen({ state, bitmap, ready: Promise.resolve() });
    $("picture").scrollIntoView({ block: "nearest" });
  } catch (error) {
    $("strip-problem").textContent = error.message;
  }
}
