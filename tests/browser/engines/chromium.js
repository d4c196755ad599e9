// Starts Chromium with Playwright.

import { createRequire } from "node:module";

// scripts/test-browser installs playwright-core in target, so that the source tree has no node_modules.
const { chromium } = createRequire(new URL("../../../target/browser/", import.meta.url))("playwright-core");
const ARGUMENTS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--autoplay-policy=no-user-gesture-required",
];

export function launch() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ARGUMENTS,
    // Enable the back/forward cache, as in the browsers of users. Playwright disables it by default.
    ignoreDefaultArgs: ["--disable-back-forward-cache"],
  });
}
