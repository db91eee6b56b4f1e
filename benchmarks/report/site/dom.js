// Elements. Text of records is only ever appended as text: there is no markup made from strings on this page.
const fill = (node, props, children) => {
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...kept(children));
  return node;
};
const kept = (children) => children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
const el = (tag, props = {}, ...children) => fill(document.createElement(tag), props, children);
const svg = (tag, props = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), props, children);
const byId = (id) => document.getElementById(id);

const button = (text, click, props = {}) => el("button", { type: "button", click, ...props }, text);
const spoken = (text) => el("span", { class: "spoken" }, text);
const say = (text) => { byId("live").textContent = text; };

// A list of terms with what they are.
const facts = (pairs) =>
  el("dl", { class: "facts" }, pairs.map(([term, told]) => el("div", {}, el("dt", {}, term), el("dd", {}, told))));

// A scroller that the keyboard reaches, around what may be wider than the window.
const scroller = (label, ...children) =>
  el("div", { class: "scroller", role: "region", "aria-label": label, tabindex: "0" }, children);
