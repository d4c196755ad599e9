// Device ids of a tab. The id is stored in sessionStorage, so that a reloaded page takes over its own slot. A duplicated
// tab has a copy of sessionStorage. Therefore a tab with a stored id asks over a BroadcastChannel whether another tab uses
// this id. If one replies, the asking tab creates a new id. Without storage, an id lasts as long as the page. Without
// BroadcastChannel, a duplicated tab has the same id as the original. `claim()` never rejects.

import { randomUuid } from "./uuid.js";

const STORAGE_KEY = "stream-manager.device";
const CHANNEL = "stream-manager.device";
// How long a tab with a stored id waits for a reply before its first start. Other tabs do not wait.
const CONFLICT_WAIT_MS = 100;

// All sessions of a page share one set of device ids.
let pageDevices;

/** Claims a device id of the page. Without one, for example because of an exception, the id is random. */
export async function claimDevice(settings) {
  try {
    return await (settings.devices ?? (pageDevices ??= createDevices(settings))).claim();
  } catch {
    return { id: randomUuid(), release() {} };
  }
}

/** `claim()` resolves with an id that no other playback of this page uses, and with a function that releases the id. */
export function createDevices({ page, timers, storage = storageOf(page), Channel = channelOf(page) }) {
  const claimed = new Set();
  let tabDeviceId;
  let ready;

  const tabId = randomUuid();
  let onConflict = () => {};
  let channel;

  function listen() {
    channel = open(Channel);
    if (channel) channel.onmessage = ({ data }) => onMessage(data ?? {});
  }

  function onMessage({ id, taken, from, to }) {
    if (id !== tabDeviceId) return;
    // Reply even while this tab itself waits for a reply. If two tabs with the same id start together, the first sends its query
    // before the second listens. Only the query of the second is then received, so only the second changes its id.
    if (!taken) return post(channel, { id, taken: true, to: from });
    if (to !== tabId) return;
    // If the reply arrives after the wait, for example from a background tab, the next playback uses the new id.
    tabDeviceId = randomUuid();
    write(storage, tabDeviceId);
    onConflict();
  }

  async function initialize() {
    const stored = read(storage);
    tabDeviceId = stored ?? randomUuid();
    if (!stored) write(storage, tabDeviceId);
    listen();
    // Close the channel, because an open channel keeps the page out of the back/forward cache. A cached page must also not
    // reply to queries, because the next page of the tab uses the same id.
    page?.window.addEventListener("pagehide", () => close(channel));
    page?.window.addEventListener("pageshow", (event) => event.persisted && listen());
    if (!stored || !channel) return;
    await new Promise((resolve) => {
      const timer = timers.setTimeout(() => resolve(undefined), CONFLICT_WAIT_MS);
      onConflict = () => {
        timers.clearTimeout(timer);
        resolve(undefined);
      };
      post(channel, { id: stored, from: tabId });
    });
  }

  return {
    async claim() {
      await (ready ??= initialize());
      let number = 1;
      const numberedId = () => (number === 1 ? tabDeviceId : `${tabDeviceId}.${number}`);
      while (claimed.has(numberedId())) number += 1;
      const id = numberedId();
      claimed.add(id);
      return { id, release: () => claimed.delete(id) };
    },
  };
}

function storageOf(page) {
  try {
    // Reading the property throws if the user blocks storage.
    return page ? page.window.sessionStorage : undefined;
  } catch {
    return undefined;
  }
}

function channelOf(page) {
  return page ? page.window.BroadcastChannel : undefined;
}

function read(storage) {
  try {
    const id = storage?.getItem(STORAGE_KEY);
    return typeof id === "string" && /^[0-9a-f-]{36}$/.test(id) ? id : undefined;
  } catch {
    return undefined;
  }
}

function write(storage, id) {
  try {
    storage?.setItem(STORAGE_KEY, id);
  } catch {
    // Storage is full or blocked. The id lasts as long as the page.
  }
}

function open(Channel) {
  try {
    return Channel ? new Channel(CHANNEL) : undefined;
  } catch {
    return undefined;
  }
}

function post(channel, message) {
  try {
    channel.postMessage(message);
  } catch {
    // The channel is already closed.
  }
}

function close(channel) {
  try {
    channel.close();
  } catch {
    // The channel is already closed, or the browser does not support channels.
  }
}
