// Controls a browser over WebDriver. Implements the part of Playwright's interface that the tests use: contexts, pages and locators.
//
// `send(command, parameters)` sends one command and resolves with its value. A WebDriver session has one current window. Each operation
// therefore takes a lock and selects its window, so that tests can use different windows at the same time.

import { createLocator } from "./locator.js";

const KEYS = { Control: "\uE009", Tab: "\uE004", Enter: "\uE007", Space: " " };

/**
 * Optional parameters:
 * - `setOffline(offline)`
 * - `closeAsUser(page)`, if the driver's own command does not close a page like a user does
 * - `clicksByScript`, if the driver cannot click elements that are replaced often
 */
export async function createBrowser({ name, version, send, close, setOffline, closeAsUser, clicksByScript }) {
  // Keep this window open, because the command `NewWindow` needs an existing window.
  const home = await send("GetWindowHandle");
  let last = Promise.resolve();

  /** Runs `steps` while no other operation runs. */
  function exclusively(steps) {
    const result = last.then(steps);
    last = result.catch(() => {});
    return result;
  }

  async function newContext() {
    const pages = new Set();

    /** Opens a window by default, because browsers throttle background tabs. */
    async function newPage({ tab = false } = {}) {
      const page = await openPage(tab ? "tab" : "window");
      pages.add(page);
      return page;
    }

    return {
      newPage,
      setOffline,
      async close() {
        await Promise.all([...pages].map((page) => page.close()));
      },
    };
  }

  async function openPage(type) {
    const { handle } = await exclusively(async () => {
      await send("SwitchToWindow", { handle: home });
      return send("NewWindow", { type, focus: true });
    });
    return createPage(handle, (steps) =>
      exclusively(async () => {
        await send("SwitchToWindow", { handle });
        return steps();
      }),
    );
  }

  function createPage(handle, inWindow) {
    let closed = false;
    const command = (name, parameters) => inWindow(() => send(name, parameters));

    async function evaluate(run, ...parameters) {
      const [result, error] = await command("ExecuteAsyncScript", { script: scriptOf(run), args: parameters });
      if (error !== null) throw new Error(error);
      return result ?? undefined;
    }

    /** Presses one key, or several keys joined by "+". */
    async function press(keys) {
      const values = keys.split("+").map((key) => KEYS[key] ?? key);
      const down = values.map((value) => ({ type: "keyDown", value }));
      const up = values.reverse().map((value) => ({ type: "keyUp", value }));
      await command("PerformActions", { actions: [{ type: "key", id: "keyboard", actions: [...down, ...up] }] });
    }

    const page = {
      evaluate,
      async goto(url) {
        await command("Navigate", { url });
        await evaluate(loaded);
      },
      async reload() {
        await command("Refresh");
        await evaluate(loaded);
      },
      goBack: () => command("Back"),
      url: () => evaluate(() => location.href),
      keyboard: { press },
      async close({ runBeforeUnload = false } = {}) {
        if (closed) return;
        closed = true;
        if (runBeforeUnload && closeAsUser) await closeAsUser(page);
        else await command("CloseWindow");
      },
    };
    return Object.assign(createLocator({ command, evaluate, press, clicksByScript }), page);
  }

  return { name, version: () => version, newContext, close };
}

// Waits until the page has loaded, because WebKit's driver may return before the scripts of the page have run.
const loaded = () => document.readyState === "complete" || new Promise((resolve) => addEventListener("load", () => resolve(true)));

// The browser passes a callback as the last argument.
const scriptOf = (run) => `
  const parameters = [...arguments];
  const done = parameters.pop();
  const result = new Promise((resolve) => resolve((${run})(...parameters)));
  result.then((value) => done([value ?? null, null]), (error) => done([null, String(error)]));`;

/** Starts a session over the HTTP interface of a WebDriver. */
export async function connect(url, capabilities) {
  const { sessionId, capabilities: granted } = await request("POST", "/session", { capabilities: { alwaysMatch: capabilities } });

  async function request(method, path, body) {
    const response = await fetch(`${url}${path}`, { method, ...(body && { body: JSON.stringify(body) }) });
    const { value } = await response.json();
    if (!response.ok) throw new Error(`${method} ${path}: ${value.error}: ${value.message}`);
    return value;
  }

  async function send(name, parameters = {}) {
    const [method, path] = COMMANDS[name];
    const { id, ...rest } = parameters;
    return request(method, `/session/${sessionId}${path.replace(":id", id)}`, method === "POST" ? rest : undefined);
  }

  return { send, version: granted.browserVersion, quit: () => request("DELETE", `/session/${sessionId}`) };
}

const COMMANDS = {
  GetWindowHandle: ["GET", "/window"],
  NewWindow: ["POST", "/window/new"],
  SwitchToWindow: ["POST", "/window"],
  CloseWindow: ["DELETE", "/window"],
  Navigate: ["POST", "/url"],
  Refresh: ["POST", "/refresh"],
  Back: ["POST", "/back"],
  ExecuteAsyncScript: ["POST", "/execute/async"],
  PerformActions: ["POST", "/actions"],
  ElementClick: ["POST", "/element/:id/click"],
  ElementSendKeys: ["POST", "/element/:id/value"],
};
