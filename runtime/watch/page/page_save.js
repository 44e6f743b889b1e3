// Saves the picture on the stage with its heatmap, or its JSON.
"use strict";

async function save(kind) {
  tell("");
  if (current === null) return;
  try {
    await frozen?.ready;
    const name = `edgex-${current.feed + 1}-${String(current.frame).padStart(6, "0")}.${kind}`;
    // An entry of the strip is here only.
    const blob = frozen !== null && frozen.state.held === undefined ? await kept(kind) : await fetched(kind);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  } catch (error) {
    tell(`Not saved. ${error.message}`);
  }
}

async function fetched(kind) {
  const { feed, held } = frozen === null ? (await hold(current)).state : frozen.state;
  return (await reach(`snapshot.${kind}?feed=${feed}&held=${held}`)).blob();
}

async function kept(kind) {
  if (kind === "json") return new Blob([JSON.stringify(current)], { type: "application/json" });
  const both = new OffscreenCanvas($("frame").width, $("frame").height);
  for (const id of ["frame", "heat"]) both.getContext("2d").drawImage($(id), 0, 0);
  return both.convertToBlob();
}
