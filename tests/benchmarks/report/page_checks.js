// What tests ask of the page's elements. Contrast is that of WCAG 2.1, section 1.4.3.
const channels = (colour) => colour.match(/[\d.]+/g).map(Number);
const luminance = (colour) => colour.slice(0, 3).map((value) => value / 255)
  .map((value) => (value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
  .reduce((sum, value, n) => sum + value * [0.2126, 0.7152, 0.0722][n], 0);

const paperBehind = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const colour = channels(getComputedStyle(at).backgroundColor);
    if (colour.length < 4 || colour[3] > 0) return colour;
  }
  return [255, 255, 255];
};

const hasText = (element) => element.checkVisibility() && !element.closest(":disabled, .spoken, option")
  && [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());

// Texts below 4.5 : 1, with their contrast.
const faintTexts = () => [...document.querySelectorAll("body *")].filter(hasText).map((element) => {
  const style = getComputedStyle(element);
  const ink = luminance(channels(element instanceof SVGElement ? style.fill : style.color));
  const paper = luminance(paperBehind(element));
  return [(Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05), element.textContent.slice(0, 40)];
}).filter(([contrast]) => contrast < 4.5);

// Tables without a caption, heads without a scope, fields without a label, pictures and buttons without a name.
const markupProblems = () => {
  const without = (selector, holds) => [...document.querySelectorAll(selector)].filter((element) => !holds(element));
  return [
    ...without("table", (table) => table.caption?.textContent),
    ...without("th", (head) => head.scope),
    ...without("input, select", (field) => field.labels.length),
    ...without("svg", (picture) => picture.getAttribute("aria-label")),
    ...without("button", (button) => button.textContent.trim()),
  ].map((element) => element.outerHTML.slice(0, 80));
};
