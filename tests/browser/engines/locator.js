// Finds elements of a page by CSS selector, role or label, like Playwright's locators.

import { eventually } from "../service.js";

// Key of an element reference in WebDriver.
const ELEMENT = "element-6066-11e4-a52e-4f735466cecf";

/** `steps` are the selectors, in order. The first applies to the document, each later one to the elements that the one before found. */
export function createLocator(page, steps = []) {
  const { command, evaluate, press } = page;
  const within = (step) => createLocator(page, [...steps, step]);

  /** Runs `use(elements, argument)` in the page. */
  const inPage = (use, argument) => evaluate(`(steps, argument) => (${use})((${findAll})(steps), argument)`, steps, argument);

  /** Waits until an element is found, and runs `use(element, argument)` in the page. */
  async function withElement(use, argument) {
    await eventually(`there is ${JSON.stringify(steps)}`, async () => (await inPage(({ length }) => length)) > 0);
    return inPage(`([element], argument) => (${use})(element, argument)`, argument);
  }

  return {
    locator: (css) => within({ css }),
    getByLabel: (label) => within({ label }),
    getByRole(role, { name, exact = false }) {
      return within({ role, name: name.source ?? name, match: name.source ? "pattern" : exact ? "exact" : "part" });
    },
    first: () => within({ first: true }),
    count: () => inPage(({ length }) => length),
    innerText: () => withElement((element) => element.innerText),
    allInnerTexts: () => inPage((elements) => elements.map(({ innerText }) => innerText)),
    getAttribute: (name) => withElement((element, name) => element.getAttribute(name), name),
    evaluate: withElement,
    async click() {
      if (page.clicksByScript) return withElement((element) => element.click());
      const { [ELEMENT]: id } = await withElement((element) => element);
      return command("ElementClick", { id });
    },
    async fill(text) {
      const { [ELEMENT]: id } = await withElement((element) => {
        element.value = "";
        return element;
      });
      await command("ElementSendKeys", { id, text });
    },
    async press(key) {
      await withElement((element) => element.focus());
      await press(key);
    },
  };
}

// Runs in the page, so it must not use variables from outside this function.
function findAll(steps) {
  const roles = { article: "article", button: "button", link: "a[href]" };
  const nameOf = (element) => element.getAttribute("aria-label") ?? element.textContent.trim();
  const matches = {
    exact: (text, name) => text === name,
    part: (text, name) => text.toLowerCase().includes(name.toLowerCase()),
    pattern: (text, name) => new RegExp(name).test(text),
  };
  const all = (root, css) => [...root.querySelectorAll(css)];
  const next = {
    css: (root, { css }) => all(root, css),
    role: (root, { role, name, match }) => all(root, roles[role]).filter((element) => matches[match](nameOf(element), name)),
    label: (root, { label }) => all(root, "label").filter(({ textContent }) => textContent.includes(label)).map(({ control }) => control),
  };
  return steps.reduce(
    (found, step) => (step.first ? found.slice(0, 1) : found.flatMap((root) => next[Object.keys(step)[0]](root, step))),
    [document],
  );
}
