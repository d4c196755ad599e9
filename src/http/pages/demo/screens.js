// What is to be read on a device's screen while it shows no picture: who is watching instead, who took over, that it crashed.
// Makes elements and holds no state.

const SVG = "http://www.w3.org/2000/svg";

export function button(text, label, click) {
  const element = document.createElement("button");
  element.type = "button";
  element.textContent = text;
  element.setAttribute("aria-label", label);
  element.addEventListener("click", () => element.getAttribute("aria-disabled") !== "true" && click());
  return element;
}

export function paragraph(text, className = "") {
  const element = document.createElement("p");
  element.textContent = text;
  element.className = className;
  return element;
}

function glyph(icon) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "glyph");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#${icon}`);
  svg.append(use);
  return svg;
}

function denied({ limit, count, streams }, { name, stop, evict }) {
  const list = document.createElement("ul");
  for (const stream of streams) {
    const row = document.createElement("li");
    const who = stream.deviceName ?? "A device";
    const title = document.createElement("span");
    title.textContent = who;
    row.append(title, button("Stop", `Stop ${who}, and play on ${name}`, () => stop(stream.streamId)));
    list.append(row);
  }
  const title = paragraph(`${count ?? streams.length} of ${limit ?? streams.length} are watching`, "title");
  return [title, list, button("Evict the oldest", `Evict the oldest stream, and play on ${name}`, evict)];
}

function ended({ reason, endedBy }) {
  const who = endedBy?.deviceName;
  const words = {
    evicted: who ? "took the slot of this device." : "Another device ended this stream.",
    replaced: who ? "started in place of this stream." : "Another start replaced this stream.",
    unavailable: "The lease ran out, and nobody answered.",
  };
  const text = words[reason] ?? `The stream was ended: ${reason}.`;
  return [paragraph(who ?? "Stopped", "title"), paragraph(text)];
}

export const screens = {
  idle: ({ icon }) => [glyph(icon), paragraph("Off")],
  denied,
  ended,
  crashed: () => [paragraph("Crashed", "title"), paragraph("No stop was sent. The lease runs down.")],
  freed: () => [paragraph("Crashed", "title"), paragraph("The lease ran out: the slot is free.")],
};
