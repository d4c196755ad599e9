// Tests that every viewer is counted. Four pages of one user never play more streams than the user's limit, with any name, title,
// browser, gateway or monitoring library.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { launch } from "./browser.js";
import { servePages } from "./page-server.js";
import { startProxy } from "./proxies.js";
import { eventually, startService } from "./service.js";

const PAGES = 4;
// Long enough that no lease expires on a slow machine.
const LEASE_S = 15;
const LEASE_MS = LEASE_S * 1000;
const HEARTBEAT_INTERVAL_S = 3;
// Number of heartbeats that each stream must send. They take longer than one lease, even if the player sends each of them 10 % early.
const RENEWALS = 6;
// Long enough to load the pages and to start the players on a slow machine.
const TIMEOUT_MS = 120_000;
// Names with accents, vowel signs or jamo. Some of the letters have no composed form.
const NAMES = {
  Latin: "Zoë Nguyễn m̃",
  Cyrillic: "Фёдор Й",
  Greek: "Ἀλέξανδρος ΐ",
  Arabic: "مُحَمَّد آ",
  Hebrew: "שָׁלוֹם",
  Devanagari: "ज़ैनब क्षि",
  Thai: "น้ำผึ้ง",
  Hangul: "한국어 각",
  Han: "東京 葛󠄀",
  emoji: "👩🏽‍🚀🏳️‍🌈 é️⃣",
};

let browser;
let pages;
let service;
const gateways = [];
/** For each route: the origins of the pages, and the URL of the service that the pages of each origin use. */
const routes = {};

before(async () => {
  pages = await servePages();
  service = await startService({
    CORS__ALLOWED_ORIGINS: pages.url,
    CORS__ALLOWED_HEADERS: "sentry-trace",
    LEASE__DURATION_S: LEASE_S,
    LEASE__HEARTBEAT_INTERVAL_S: HEARTBEAT_INTERVAL_S,
  });
  const [nginx, haproxy] = await Promise.all(["nginx", "haproxy"].map((name) => startProxy(name, { service, pages })));
  // Behind a gateway, half of the pages have the gateway's origin, and the other half have a different origin.
  const behind = ({ url }) => [{ origin: url, api: "" }, { origin: pages.url, api: url }];
  Object.assign(routes, {
    directly: [{ origin: pages.url, api: service.url }],
    "behind nginx": behind(nginx),
    "behind HAProxy": behind(haproxy),
  });
  gateways.push(nginx, haproxy);
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await Promise.all([service, pages, ...gateways].map((started) => started?.stop()));
});

async function setLimit(user, limit) {
  const response = await fetch(`${service.url}/v1/users/${encodeURIComponent(user)}/limit`, {
    method: "PUT",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ limit }),
  });
  assert.equal(response.status, 200, await response.text());
}

/** Opens the pages. The names are in NFC in the first half of the pages, and in NFD in the second half. */
async function openPages(context, route, users) {
  return Promise.all(
    Array.from({ length: PAGES }, async (_, index) => {
      const { origin, api } = route[index % route.length];
      const query = new URLSearchParams({ api });
      for (const user of users) query.append("user", user.normalize(index < PAGES / 2 ? "NFC" : "NFD"));
      const page = await context.newPage();
      await page.goto(`${origin}/crowd.html?${query}`);
      return page;
    }),
  );
}

/** Returns the states of the players: one list for each page, with one state for each user. */
const statesOf = (opened) => Promise.all(opened.map((page) => page.evaluate(() => window.crowd.states())));

const byUser = (states) => states[0].map((_, user) => states.map((page) => page[user]));

/** Returns the number of pages that play, for each user. */
const countPlaying = (states) => byUser(states).map((players) => players.filter(({ playing }) => playing).length);

/** Returns the maximum number of pages that played at the same time after `sinceMs`, for each user. */
function maxPlaying(states, sinceMs) {
  return byUser(states).map((players) => {
    const times = players.flatMap(({ changes }) => changes.map(([ms]) => ms)).filter((ms) => ms > sinceMs);
    const playingAt = (ms) => players.filter(({ changes }) => changes.filter(([changedMs]) => changedMs <= ms).at(-1)?.[1]).length;
    return Math.max(...[sinceMs, ...times].map(playingAt));
  });
}

/** Waits until `isExpected` returns true for the states of all players, and returns these states. */
async function expectEach(opened, description, isExpected) {
  let states;
  const check = async () => {
    states = await statesOf(opened);
    return states.flat().every(isExpected) || states;
  };
  await eventually(description, check, TIMEOUT_MS);
  return states;
}

/** Checks that the service lists `count` streams, with the device names and content ids in NFC. */
async function expectListed(user, count) {
  const listed = (await service.streams(user)).map(({ deviceName, contentId }) => [deviceName, contentId]);
  assert.deepEqual(listed, Array(count).fill([user, user]));
}

async function expectPlaying(opened, expected) {
  const isExpected = async () => {
    const states = await statesOf(opened);
    return countPlaying(states).every((count) => count === expected) || states;
  };
  await eventually(`${expected} of ${PAGES} pages play for each user`, isExpected, TIMEOUT_MS);
}

// Whether the start has an outcome: started, denied or failed.
const hasDecided = ({ seen }) => Boolean(seen.started ?? seen.denied ?? seen.error ?? seen.unavailable);
const hasRenewed = ({ slot, seen }) => !slot || seen.renewed?.length >= RENEWALS;

describe("four pages of one user", { concurrency: 3 }, () => {
  for (const route of ["directly", "behind nginx", "behind HAProxy"]) {
    for (const limit of [0, 1, 3]) {
      test(`${route}, at most ${limit} play`, async () => {
        const users = Object.values(NAMES).map((name) => `${name} ${route} ${limit}`);
        for (const user of users) await setLimit(user.normalize("NFC"), limit);
        const context = await browser.newContext();
        try {
          const opened = await openPages(context, routes[route], users);
          const openedMs = Date.now();
          await expectEach(opened, "all players have started, were denied or have failed", hasDecided);
          await expectPlaying(opened, limit);
          const states = await expectEach(opened, "all streams are renewed", hasRenewed);
          assert.deepEqual(countPlaying(states), users.map(() => limit));
          assert.deepEqual(maxPlaying(states, openedMs + LEASE_MS), users.map(() => limit));
          for (const user of users) await expectListed(user.normalize("NFC"), limit);
        } finally {
          await context.close();
        }
      });
    }
  }
});
