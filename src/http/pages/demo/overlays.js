// Contents of the overlay that covers a device's video when it does not play. The file also contains the button and paragraph helpers.

const SVG = "http://www.w3.org/2000/svg";

export function button(text, label, onClick) {
  const element = document.createElement("button");
  element.type = "button";
  element.textContent = text;
  element.setAttribute("aria-label", label);
  element.addEventListener("click", () => element.getAttribute("aria-disabled") !== "true" && onClick());
  return element;
}

function paragraph(text, className = "") {
  const element = document.createElement("p");
  element.textContent = text;
  element.className = className;
  return element;
}

function largeIcon(icon) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "large-icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#${icon}`);
  svg.append(use);
  return svg;
}

function denied({ limit, count, streams, rule }, { name, stopOther, evictOldest }) {
  const list = document.createElement("ul");
  for (const stream of streams) {
    const row = document.createElement("li");
    const deviceName = stream.deviceName ?? "A device";
    const label = document.createElement("span");
    label.textContent = deviceName;
    row.append(label, button("Stop", `Stop ${deviceName}, and play on ${name}`, () => stopOther(stream.streamId)));
    list.append(row);
  }
  if (limit === 0 && rule) return [paragraph("This stream is not allowed", "title"), paragraph(`The rule “${rule}” forbids it.`)];
  if (limit === 0) return [paragraph("This account may not watch", "title"), paragraph("Its limit is 0.")];
  const title = `${rule ? `${rule}: ` : ""}${count ?? streams.length} of ${limit ?? streams.length} streams are live`;
  return [paragraph(title, "title"), list, button("Evict the oldest", `Evict the oldest stream, and play on ${name}`, evictOldest)];
}

function ended({ reason, endedBy, status }) {
  const { deviceName, message } = endedBy ?? {};
  const texts = {
    evicted: deviceName ? "took the slot of this device." : "Another device ended this stream.",
    replaced: deviceName ? "replaced this stream." : "Another start replaced this stream.",
    unavailable: "The lease expired while the service was unavailable.",
    refused: `The service rejected its requests (${status}) for one lease duration.`,
  };
  const text = message ?? texts[reason] ?? `The stream was ended: ${reason}.`;
  return [paragraph(deviceName ?? "Stopped", "title"), paragraph(text)];
}

export const overlays = {
  idle: ({ icon }) => [largeIcon(icon), paragraph("Off")],
  denied,
  ended,
  crashed: () => [paragraph("Crashed", "title"), paragraph("No stop was sent. The slot is free when the lease expires.")],
  freed: () => [paragraph("Crashed", "title"), paragraph("The lease expired: the slot is free.")],
};
