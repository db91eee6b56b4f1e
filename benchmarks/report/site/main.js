// The frame: data, views, filters, and drawing all of it whenever something was chosen.
const VIEW_NAMES = Object.keys(VIEWS);

const tab = (text, current, click, key) => button(text, click, { "aria-current": current ? "page" : null, "data-key": key });

const drawFrame = () => {
  const runs = (kind) => RUNS.filter((run) => run.group.data === kind).length;
  byId("kinds").replaceChildren(...Object.entries(DATA.kinds).map(([kind, title]) =>
    tab(`${title} (${many(runs(kind), "run")})`, state.data === kind, () => update({ data: kind, benchmark: [], method: [], metric: [], sort: "", open: "" }, true), `kind ${kind}`)));
  byId("views").replaceChildren(...VIEW_NAMES.map((name) =>
    tab(VIEWS[name].title, state.view === name, () => update({ view: name, sort: "", open: "" }, true), `view ${name}`)));
  byId("warning").hidden = state.data !== "twin";
  byId("warning").textContent = DATA.warning;
  byId("summary").replaceChildren(...DATA.summary[state.data].map((line) => el("p", {}, line)));
  document.body.dataset.kind = state.data;
};

const drawVersion = () => {
  const commits = [...new Set(environments().map(({ commit, dirty }) => `${String(commit ?? "unknown").slice(0, 8)}${dirty === false ? "" : " (not clean)"}`))];
  const parts = [`Suite ${DATA.suite.version}`, many(RUNS.length, "run"), `run at commit ${commits.slice(0, 3).join(", ")}${commits.length > 3 ? " and others" : ""}`, `data of this page sha256 ${DIGEST.slice(0, 12)}`];
  byId("version").replaceChildren(parts.join(" · "));
};

// What can be ticked in this view. Published numbers also name benchmarks and methods that were not run.
const choices = () => {
  if (state.view === "published") {
    const sections = DATA.tables.published.parts[state.data];
    const records = sections.flatMap((section) => section.records);
    const unique = (pairs) => [...new Map(pairs)];
    return { benchmark: unique(sections.flatMap((section) => section.records.map((record) => [record.benchmark, section.title]))),
      metric: unique(records.map((record) => [record.metric, DATA.metrics[record.metric].title])),
      method: unique(records.map((record) => [record.method, record.label])) };
  }
  const groups = groupsHere();
  const tried = new Set(groups.flatMap((group) => group.rows.map((row) => row.method)));
  return {
    benchmark: groups.map((group) => [group.id, group.title, `${group.protocol}, ${group.profile}`]),
    metric: Object.keys(DATA.metrics).filter((name) => groups.some((group) => group.metrics.includes(name))).map((name) => [name, DATA.metrics[name].title]),
    method: DATA.methods.filter((method) => tried.has(method.name)).map((method) => [method.name, method.label]),
  };
};

const USES = {
  metric: ["methods", "plots", "published"], benchmark: VIEW_NAMES.filter((name) => name !== "about"), method: VIEW_NAMES.filter((name) => name !== "about"),
  complete: ["methods", "plots", "published", "runs"], gaps: ["methods"], status: ["runs"], q: VIEW_NAMES.filter((name) => name !== "about"),
};
const uses = (name) => USES[name].includes(state.view);
const COMPLETE = { methods: "Complete rows only", plots: "Complete rows only", published: "With a verdict only", runs: "Counted runs only" };

const flag = (name, title) => el("label", { class: "tick" }, el("input", { type: "checkbox", name, checked: state[name],
  change: (event) => update({ [name]: event.target.checked }) }), title);

const ticksOf = (list, title, none, options) => el(
  "fieldset", {}, el("legend", {}, title),
  el("p", { class: "hint" }, none, " ", button("all", () => { update({ [list]: options.map(([value]) => value) }); drawControls(); }, { class: "plain", "aria-label": `${title}: tick all`, "data-key": `all ${list}` }),
    " ", button("none", () => { update({ [list]: [] }); drawControls(); }, { class: "plain", "aria-label": `${title}: tick none`, "data-key": `none ${list}` })),
  options.map(([value, text, brief]) => el("label", { class: "tick" }, el("input", { type: "checkbox", name: list, value, checked: state[list].includes(value), change: () => tick(list) }),
    el("span", {}, text, brief && el("span", { class: "brief" }, brief)))),
);
const tick = (list) => {
  const boxes = [...byId("controls").querySelectorAll(`input[name="${list}"]`)];
  update({ [list]: boxes.filter((box) => box.checked).map((box) => box.value) });
};

const drawControls = () => {
  const focus = focused();
  const { benchmark, metric, method } = choices();
  const search = el("input", { type: "search", name: "q", value: state.q, placeholder: "any words", input: (event) => update({ q: event.target.value }) });
  const status = el("select", { name: "status", change: (event) => update({ status: event.target.value }) },
    ["", ...STATUSES].map((name) => el("option", { value: name, selected: state.status === name }, name || "any")));
  byId("filters").hidden = state.view === "about";
  byId("controls").replaceChildren(...kept([
    uses("q") && el("label", { class: "block" }, "Search", search),
    uses("complete") && flag("complete", COMPLETE[state.view]),
    uses("gaps") && flag("gaps", "Differences and intervals"),
    uses("status") && el("label", { class: "block" }, "Status", status),
    uses("benchmark") && ticksOf("benchmark", "Benchmarks", "None ticked: all.", benchmark),
    uses("metric") && ticksOf("metric", "Metrics", state.view === "published" ? "None ticked: all." : "None ticked: the main one of each.", metric),
    uses("method") && ticksOf("method", "Methods", "None ticked: all.", method),
    button("Reset filters", () => { update({ ...DEFAULTS, data: state.data, view: state.view }, true); drawControls(); }, { "data-key": "reset" }),
  ]));
  refocus(focus);
};

const focused = () => document.activeElement?.dataset?.key ?? null;
const refocus = (key) => { if (key) document.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus(); };

const drawDownloads = () => el("p", { class: "downloads" }, "Download this view: ",
  Object.entries(FORMAT_NAMES).map(([suffix, name]) => [button(name, () => download(suffix), { "data-key": `download ${suffix}`, "data-format": suffix }), " "]));

const drawMain = () => {
  const view = VIEWS[state.view];
  const body = state.view === "plots" ? drawPlots() : view.sheets().map(drawSheet);
  byId("content").replaceChildren(drawDownloads(),
    ...(view.intro ?? []).map((said) => el("p", { class: "said" }, said)),
    ...(state.view === "about" ? [drawDigest()] : []), ...kept(body));
};

// The digest in the head, computed again from what is embedded, where the browser offers it.
const drawDigest = () => {
  const told = el("span", {}, "not compared: this browser offers no digests here");
  if (!isWhole()) return null;
  const bytes = new TextEncoder().encode(byId("data").textContent + byId("curves").textContent);
  globalThis.crypto?.subtle?.digest("SHA-256", bytes).then((found) => {
    const hex = [...new Uint8Array(found)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    told.textContent = hex === DIGEST ? "computed again in this browser: equal" : `computed again in this browser: DIFFERENT, ${hex}`;
  });
  return facts([["Suite", `${DATA.suite.name} ${DATA.suite.version}`], ["Made by", DATA.made], ["SHA-256 of the embedded data", [DIGEST, el("br"), told]]]);
};

// before: what was shown until now; only what depends on a change is drawn anew, and the focus stays where it was.
const render = (before = null) => {
  const changed = (...names) => !before || names.some((name) => JSON.stringify(before[name]) !== JSON.stringify(state[name]));
  const rest = Object.keys(DEFAULTS).filter((name) => name !== "open");
  const focus = focused();
  if (changed("data", "view")) { drawFrame(); drawControls(); }
  if (changed(...rest) || before.open === state.open) drawMain();
  refocus(focus);
  if (changed("open")) {
    drawDetail();
    if (before && !state.open) refocus(`open ${before.open}`);
  }
};

const restore = () => {
  const before = state;
  state = stateOf(location.hash);
  page = 0;
  render(before);
  if (before.data === state.data && before.view === state.view) drawControls();
};

const setTheme = (theme) => {
  document.documentElement.dataset.theme = theme;
  byId("theme").value = theme;
  try { localStorage.setItem("clcr-theme", theme); } catch { /* no storage here: the choice lasts until the page is left */ }
};
const savedTheme = () => {
  try { return localStorage.getItem("clcr-theme"); } catch { return null; }
};

byId("theme").addEventListener("change", (event) => setTheme(event.target.value));
byId("skip").addEventListener("click", (event) => { event.preventDefault(); byId("content").focus(); });
byId("permalink").addEventListener("click", () => {
  const copied = navigator.clipboard?.writeText(location.href) ?? Promise.reject(new Error("no clipboard"));
  copied.then(() => say("Link copied."), () => say("The address bar holds the link."));
});
addEventListener("popstate", restore);
if (matchMedia("(max-width: 60rem)").matches) byId("filters").open = false;
setTheme(["light", "dark"].includes(savedTheme()) ? savedTheme() : "auto");
state = stateOf(location.hash);
drawVersion();
render();
performance.mark("drawn");
// What needs the rest of the file is drawn once more when it is there.
addEventListener("DOMContentLoaded", () => { if (state.open || state.view === "about") render(); });
