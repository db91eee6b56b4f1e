// What the reader has chosen. It lives in the address, after the #, so that a link shows the same view again.
const LISTS = ["benchmark", "metric", "method"];
const FLAGS = ["complete", "gaps"];
const TEXTS = ["data", "view", "q", "status", "sort", "open"];
const DEFAULTS = {
  data: GROUPS.some((group) => group.data === "real") || !GROUPS.length ? "real" : "twin",
  view: "methods", q: "", status: "", sort: "", open: "", complete: false, gaps: true,
  benchmark: [], metric: [], method: [],
};
let state = { ...DEFAULTS };
let page = 0;
let steps = 0; // entries of the history that this page made

const stateOf = (hash) => {
  const said = new URLSearchParams(hash.replace(/^#/, ""));
  const found = { ...DEFAULTS };
  TEXTS.forEach((name) => { if (said.has(name)) found[name] = said.get(name); });
  FLAGS.forEach((name) => { if (said.has(name)) found[name] = said.get(name) === "1"; });
  LISTS.forEach((name) => { found[name] = said.getAll(name); });
  if (!(found.data in DATA.kinds)) found.data = DEFAULTS.data;
  if (!(found.view in VIEWS)) found.view = DEFAULTS.view;
  return found;
};

const hashOf = (chosen) => {
  const said = new URLSearchParams();
  TEXTS.forEach((name) => { if (chosen[name] !== DEFAULTS[name]) said.set(name, chosen[name]); });
  FLAGS.forEach((name) => { if (chosen[name] !== DEFAULTS[name]) said.set(name, chosen[name] ? "1" : "0"); });
  LISTS.forEach((name) => chosen[name].forEach((value) => said.append(name, value)));
  return `#${said}`;
};

// step: a new entry of the browser's history, so that "back" undoes it.
const update = (changes, step = false) => {
  const before = state;
  state = { ...state, ...changes };
  if (!("page" in changes)) page = 0;
  if (step) steps += 1;
  history[step ? "pushState" : "replaceState"](null, "", hashOf(state));
  render(before);
};

// Nothing ticked means everything; of metrics it means the main one of each benchmark.
const chosen = (list, name) => !state[list].length || state[list].includes(name);
const metricsOf = (group) => {
  const found = group.metrics.filter((metric) => state.metric.includes(metric));
  return state.metric.length ? found : [group.main];
};
const words = () => state.q.toLowerCase().split(/\s+/).filter(Boolean);
const holds = (text, terms) => terms.every((term) => text.toLowerCase().includes(term));
const groupsHere = () => GROUPS.filter((group) => group.data === state.data);
