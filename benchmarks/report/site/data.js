// The embedded records, read-only. Learning curves stand behind this script, so that it need not wait for them, and are
// parsed when the first run is opened.
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const DATA = read("data");
const DIGEST = document.documentElement.dataset.digest;
const DASH = "—";
const FULL = "full";
const GROUPS = DATA.groups;
const GROUP = new Map(GROUPS.map((group) => [group.id, group]));
const METHOD = new Map(DATA.methods.map((method, order) => [method.name, { ...method, order }]));
const BY_LABEL = new Map(DATA.methods.map((method) => [method.label, method.name]));
const STATUSES = ["done", "failed", "stale", "missing"];

let curves = null;
const isWhole = () => document.readyState !== "loading";
const curveOf = (run) => (isWhole() ? (curves ??= read("curves"))[run.index] ?? null : null);

const pool = (place) => (place === null ? null : DATA.runs.pool[place]);
const field = (run, name) => DATA.runs.columns[name][run.index];

const rowPath = (group, method, variant) => `${group.id}/${method}/${variant}`;
const ROW = new Map(GROUPS.flatMap((group) => group.rows.map((row) => [rowPath(group, row.method, row.variant), row])));

const RUNS = DATA.runs.columns.seed.map((seed, index) => {
  const group = GROUPS[DATA.runs.columns.group[index]];
  const row = group.rows[DATA.runs.columns.row[index]];
  const path = `${rowPath(group, row.method, row.variant)}/seed-${String(seed).padStart(3, "0")}`;
  return { index, group, row, seed, path, status: DATA.runs.columns.status[index] };
});
const RUN = new Map(RUNS.map((run) => [run.path, run]));

// One value of one run as tables print it. Means, intervals and p values are never made here: their texts are embedded.
const show = (metric, value) => {
  const { unit, digits } = DATA.metrics[metric];
  return isNumber(value) ? (value * (unit === "%" ? 100 : 1)).toFixed(digits).replace("-", "−") : DASH;
};
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const many = (n, thing) => `${n.toLocaleString("en")} ${thing}${n === 1 ? "" : "s"}`;
const scoreOf = (run, metric, split = "test") => field(run, split)?.[run.group.metrics.indexOf(metric)] ?? null;
const epochsOf = (run) => field(run, "selection")?.epochs ?? [];
