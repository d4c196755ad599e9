// Starts Firefox and sends it WebDriver commands over Marionette, Firefox's own protocol. Debian has no geckodriver.

import { once } from "node:events";
import { connect } from "node:net";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { eventually } from "../service.js";
import { start } from "./process.js";
import { createBrowser } from "./webdriver.js";

const START_TIMEOUT_MS = 60_000;
const PREFERENCES = {
  // With 0, Firefox selects a free port and writes it to its profile.
  "marionette.port": 0,
  "media.autoplay.default": 0,
  "media.block-autoplay-until-in-foreground": false,
  // Without this preference, pages on localhost can connect even if the browser is offline.
  "network.disable-localhost-when-offline": true,
  // Disable the requests and pages of the browser itself.
  "app.normandy.enabled": false,
  "browser.aboutwelcome.enabled": false,
  "browser.newtabpage.enabled": false,
  "browser.safebrowsing.malware.enabled": false,
  "browser.safebrowsing.phishing.enabled": false,
  "browser.shell.checkDefaultBrowser": false,
  "browser.startup.homepage_override.mstone": "ignore",
  "browser.startup.page": 0,
  "datareporting.policy.dataSubmissionEnabled": false,
  "extensions.update.enabled": false,
  "network.captive-portal-service.enabled": false,
  "network.connectivity-service.enabled": false,
  "services.settings.server": "data:,",
  "termsofuse.bypassNotification": true,
};

export async function launch() {
  const profile = await mkdtemp(join(tmpdir(), "stream-manager-firefox-"));
  const lines = Object.entries(PREFERENCES).map(([name, value]) => `user_pref("${name}", ${JSON.stringify(value)});\n`);
  await writeFile(join(profile, "user.js"), lines.join(""));
  const firefox = start(process.env.FIREFOX ?? "firefox-esr", [
    "--headless",
    "--marionette",
    // Allows privileged scripts, such as SET_OFFLINE.
    "--remote-allow-system-access",
    "--no-remote",
    "--profile",
    profile,
  ]);

  async function close() {
    await firefox.stop();
    // Child processes of Firefox may still write to the profile.
    await rm(profile, { recursive: true, force: true, maxRetries: 20 });
  }

  try {
    let port;
    await eventually("Firefox listens", async () => {
      firefox.check();
      port = await readFile(join(profile, "MarionetteActivePort"), "utf8").catch(() => "");
      return port !== "";
    }, START_TIMEOUT_MS);
    const send = await openMarionette(Number(port));
    const { capabilities } = await send("NewSession", { capabilities: {} });
    return await createBrowser({ name: "firefox", version: capabilities.browserVersion, send, close, setOffline: offlineSwitch(send) });
  } catch (error) {
    await close();
    throw error;
  }
}

// Also closes all connections. Otherwise the open connections to localhost could still be used.
const SET_OFFLINE = `Services.io.offline = arguments[0];
  Services.obs.notifyObservers(null, "net:prune-all-connections");`;

/** Sets the whole browser offline. */
const offlineSwitch = (send) => async (offline) => {
  await send("Marionette:SetContext", { value: "chrome" });
  await send("ExecuteScript", { script: SET_OFFLINE, args: [offline] });
  await send("Marionette:SetContext", { value: "content" });
};

// A message consists of its length in bytes, a colon and JSON. A command is `[0, id, command, parameters]`, and a response is
// `[1, id, error, result]`.
async function openMarionette(port) {
  const socket = connect(port, "127.0.0.1");
  await once(socket, "connect");
  const pending = new Map();
  let received = Buffer.alloc(0);
  let lastId = 0;

  socket.on("data", (data) => {
    received = Buffer.concat([received, data]);
    for (let message; (message = next()); ) {
      // The first message is not a response. It describes the server.
      if (!Array.isArray(message)) continue;
      const [, id, error, result] = message;
      const { resolve, reject } = pending.get(id);
      pending.delete(id);
      if (error) reject(new Error(`${error.error}: ${error.message}`));
      else resolve(result && "value" in result ? result.value : result);
    }
  });
  socket.on("close", () => {
    for (const { reject } of pending.values()) reject(new Error("Firefox closed the connection"));
  });

  function next() {
    const colon = received.indexOf(":");
    const end = colon + 1 + Number(received.subarray(0, colon));
    if (colon < 0 || received.length < end) return undefined;
    const message = JSON.parse(received.subarray(colon + 1, end));
    received = received.subarray(end);
    return message;
  }

  return function send(name, parameters = {}) {
    const id = ++lastId;
    const command = name.includes(":") ? name : `WebDriver:${name}`;
    const message = JSON.stringify([0, id, command, parameters]);
    socket.write(`${Buffer.byteLength(message)}:${message}`);
    return new Promise((resolve, reject) => pending.set(id, { resolve, reject }));
  };
}
