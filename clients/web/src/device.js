// The device id of a tab: kept in sessionStorage, so that a reload takes over its own slot, and told apart from a
// duplicated tab's copy by asking the other tabs. Sends nothing to the service. Never fails: without storage the id
// lasts as long as the page, without BroadcastChannel a duplicated tab shares its original's.

import { newId } from "./platform.js";

const STORAGE_KEY = "stream-manager.device";
const CHANNEL = "stream-manager.device";
// Only a tab that found an id in its storage waits, and only before its first start.
const WAIT_FOR_TABS_MS = 100;

/** The ids of this page: `claim()` gives one that no other playback of the page holds at the moment. */
export function createDevices({ page, timers, storage = storageOf(page), Channel = channelOf(page) }) {
  const held = new Set();
  let known;
  let settled;

  const me = newId();
  let answered = () => {};
  let channel;

  function listen() {
    channel = open(Channel);
    if (channel) channel.onmessage = ({ data }) => heard(data ?? {});
  }

  function heard({ id, taken, from, to }) {
    if (id !== known) return;
    // Also while this tab asks itself: of two that do, the later one hears nothing of the first.
    if (!taken) return post(channel, { id, taken: true, to: from });
    if (to !== me) return;
    // Also after the wait, as of a tab in the background: then it is for the next playback.
    known = newId();
    write(storage, known);
    answered();
  }

  async function settle() {
    const stored = read(storage);
    known = stored ?? newId();
    if (!stored) write(storage, known);
    listen();
    // A page kept for "back" must not answer for its tab, and an open channel would keep it from being kept.
    page?.window.addEventListener("pagehide", () => close(channel));
    page?.window.addEventListener("pageshow", (event) => event.persisted && listen());
    if (!stored || !channel) return;
    await new Promise((resolve) => {
      const timer = timers.setTimeout(() => resolve(undefined), WAIT_FOR_TABS_MS);
      answered = () => {
        timers.clearTimeout(timer);
        resolve(undefined);
      };
      post(channel, { id: stored, from: me });
    });
  }

  return {
    async claim() {
      await (settled ??= settle());
      let place = 1;
      const idAt = () => (place === 1 ? known : `${known}.${place}`);
      while (held.has(idAt())) place += 1;
      const id = idAt();
      held.add(id);
      return { id, release: () => held.delete(id) };
    },
  };
}

function storageOf(page) {
  try {
    // Reading the property throws where the user forbids storage.
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
    // Full or forbidden: then the id lasts as long as the page.
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
    // Closed meanwhile.
  }
}

function close(channel) {
  try {
    channel.close();
  } catch {
    // Closed already.
  }
}
