// Starts WebKitGTK with its WebDriver, on a virtual display.

import { execFile } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { promisify } from "node:util";
import { eventually, freePort } from "../service.js";
import { start } from "./process.js";
import { connect, createBrowser } from "./webdriver.js";

const START_TIMEOUT_MS = 60_000;

export async function launch() {
  const display = start("Xvfb", ["-displayfd", "1", "-screen", "0", "1280x900x24", "-nolisten", "tcp"]);
  const [number] = await once(display.child.stdout, "data");
  const environment = { DISPLAY: `:${String(number).trim()}`, GDK_BACKEND: "x11", WEBKIT_DISABLE_DMABUF_RENDERER: "1" };
  const port = await freePort();
  const driver = start("WebKitWebDriver", [`--port=${port}`], environment);
  const url = `http://127.0.0.1:${port}`;

  async function stop() {
    await driver.stop();
    await display.stop();
  }

  try {
    await eventually("WebKitWebDriver listens", async () => {
      driver.check();
      return fetch(`${url}/status`).then(({ ok }) => ok, () => false);
    }, START_TIMEOUT_MS);
    const options = { args: ["--automation", "--autoplay-policy=allow"] };
    const { send, version, quit } = await connect(url, { "webkitgtk:browserOptions": options });
    const close = async () => {
      await quit();
      await stop();
    };
    const closeAsUser = pressCtrlW(environment);
    return await createBrowser({ name: "webkit", version, send, close, closeAsUser, clicksByScript: true });
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Closes a page with Ctrl+W. The driver's own command often ends the process of the page before the `pagehide` event. */
const pressCtrlW = (environment) => async (page) => {
  const title = randomUUID();
  await page.evaluate((title) => (document.title = title), title);
  const xdotool = (...steps) => promisify(execFile)("xdotool", steps, { env: { ...process.env, ...environment }, timeout: 10_000 });
  await xdotool("search", "--sync", "--name", title, "windowfocus", "--sync");
  await xdotool("key", "ctrl+w");
};
