// What each view shows, as sheets, from the embedded tables and the reader's filters.
const methodText = (name) => `${METHOD.get(name)?.label ?? name} ${name}`;
const groupText = (group) => `${group.name} ${group.id}`;
const metricText = (metric) => `${DATA.metrics[metric].title} ${metric}`;

// Words of the search that name a method choose rows; the others choose benchmarks and metrics.
const searched = () => {
  const terms = words();
  const rows = terms.filter((term) => DATA.methods.some((method) => holds(methodText(method.name), [term])));
  return { rows, columns: terms.filter((term) => !rows.includes(term)) };
};

const LEGEND = [
  "Mean ± standard deviation over seeds (number of runs). Bold: best mean of the whole column, which says nothing about significance.",
  "Second line: CLCR minus this row with its 95 % interval; paired t test by seed, two-sided, level 0.05, Holm's correction over the comparisons of one metric.",
  `${DATA.marks["1"]} CLCR significantly better than this row, ${DATA.marks["-1"]} significantly worse; without a mark nothing is shown, which is not equality.`,
];
const MARK_WORDS = { 1: "CLCR significantly better than this row", "-1": "CLCR significantly worse than this row" };

const matrixColumns = () => {
  const { columns: terms } = searched();
  return groupsHere().filter((group) => chosen("benchmark", group.id)).flatMap((group) => metricsOf(group)
    .filter((metric) => holds(`${groupText(group)} ${metricText(metric)}`, terms))
    .map((metric) => ({ group, metric })));
};

const matrixMethods = (columns) => {
  const { rows: terms } = searched();
  const tried = new Set(columns.flatMap(({ group }) => group.rows.filter((row) => row.variant === FULL).map((row) => row.method)));
  return DATA.methods.map((method) => method.name)
    .filter((name) => tried.has(name) && chosen("method", name) && holds(methodText(name), terms))
    .filter((name) => !state.complete || columns.every(({ group, metric }) => isComplete(group, name, metric)));
};

const fullRow = (group, method) => ROW.get(rowPath(group, method, FULL));
const isComplete = (group, method, metric) => {
  const row = fullRow(group, method);
  return Boolean(row?.cells[metric]) && row.lacks.length === 0;
};

const whyMissing = (group, method) => {
  const row = fullRow(group, method);
  if (row?.lacks.length) return `missing: ${row.lacks[0][1]}`;
  const { modality } = METHOD.get(method);
  return modality && !group.modalities.includes(modality) ? "no such modality here" : "not run here";
};

const matrixCell = (group, method, metric) => {
  const row = fullRow(group, method);
  const cell = row?.cells[metric];
  const open = row ? `cell:${rowPath(group, method, FULL)}/${metric}` : null;
  if (!cell) return { text: DASH, sort: null, sub: whyMissing(group, method), missing: true, open };
  const flag = row.lacks.length ? `${row.lacks.length} missing` : null;
  const gap = cell.gap ?? (cell.untested ? `not tested: ${cell.untested}` : null);
  return { text: cell.text, sort: cell.mean, bold: cell.best, mark: DATA.marks[cell.better], markWords: MARK_WORDS[cell.better],
    sub: state.gaps && gap ? (cell.gap ? `Δ ${gap}` : gap) : null, plainSub: gap, flag, open };
};

const matrixRecord = (group, method, metric) => {
  const row = fullRow(group, method);
  const cell = row?.cells[metric] ?? {};
  const verdict = { 1: "better", "-1": "worse", 0: "undecided" };
  return {
    data: group.data, benchmark: group.benchmark, protocol: group.protocol, profile: group.profile,
    selection: group.selection, method, label: METHOD.get(method).label, variant: FULL, metric,
    direction: DATA.metrics[metric].direction, n: cell.n ?? 0, mean: cell.mean ?? null, sd: cell.sd ?? null,
    best_reachable: group.ceiling[metric]?.value ?? null, difference: cell.difference ?? null, low: cell.low ?? null,
    high: cell.high ?? null, p: cell.p ?? null, p_holm: cell.p_holm ?? null, clcr_is: verdict[cell.better] ?? "",
    missing: cell.n && !row.lacks.length ? "" : row?.lacks.map(([seed, why]) => `seed ${seed}: ${why}`).join("; ") || whyMissing(group, method),
  };
};

// What the numbers of each benchmark mean, and what can be concluded from those shown.
const meaning = (columns) => {
  const groups = [...new Set(columns.map(({ group }) => group))];
  const cards = groups.map((group) => ({ title: group.name, facts: group.facts, notes: [
    ...columns.filter((column) => column.group === group).flatMap(({ metric }) => group.words[metric]), ...group.notes] }));
  return { cards, notes: cards.flatMap(({ title, facts: said, notes }) => [`${title}: ${said.join(" ")}`, ...notes]) };
};

const methodSheets = () => {
  const columns = matrixColumns();
  const rows = matrixMethods(columns).map((method) => ({
    ours: method === DATA.ours,
    cells: [{ text: METHOD.get(method).label, sort: METHOD.get(method).label },
      ...columns.map(({ group, metric }) => matrixCell(group, method, metric))],
    records: columns.map(({ group, metric }) => matrixRecord(group, method, metric)),
  }));
  if (rows.length && columns.some(({ group }) => Object.keys(group.ceiling).length)) {
    const best = ({ group, metric }) => ({ text: group.ceiling[metric]?.text ?? DASH });
    rows.push({ foot: true, cells: [{ text: "Best reachable (known)" }, ...columns.map(best)], records: [] });
  }
  const heads = columns.map(({ group, metric }) => ({ id: `${group.id}/${metric}`, title: DATA.metrics[metric].heading, numeric: true,
    first: DATA.metrics[metric].direction === "max" ? "down" : "up", over: group }));
  return columns.length
    ? [{ title: `${DATA.kinds[state.data]}: methods`, columns: [{ id: "method", title: "Method" }, ...heads], rows, facts: LEGEND, ...meaning(columns) }]
    : [{ title: `${DATA.kinds[state.data]}: methods`, columns: [], rows: [] }];
};

// A committed table, section by section, rows beside their csv lines.
const tableSheets = (name) => {
  const { parts, empty } = DATA.tables[name];
  const sheets = parts[state.data].map((section) => tableSheet(name, section)).filter(Boolean);
  if (sheets.length) return sheets;
  const why = parts[state.data].length ? "Nothing here fits the filters." : empty[state.data];
  return [{ title: DATA.tables[name].title, columns: [], rows: [], empty: why }];
};

const tableSheet = (name, section) => {
  if (section.group && !chosen("benchmark", section.group)) return null;
  const group = GROUP.get(section.group);
  const rows = section.rows.map((texts, n) => tableRow(section, group, texts, section.records[n]))
    .filter((row) => keepsRow(name, section, row));
  if (!rows.length && section.rows.length) return null;
  const columns = section.columns.map((title, n) => ({ id: title, title, numeric: looksNumeric(section.rows.map((row) => row[n])) }));
  return { title: section.title, columns, rows, facts: section.facts, notes: section.notes, empty: "No comparison here." };
};

const TONES = [["reproduced", "good"], ["not reproduced", "bad"], ["CLCR better", "good"], ["CLCR worse", "bad"],
  ["undecided", "quiet"], ["inconclusive", "quiet"], ["not run", "quiet"]];
const toneOf = (column, text) =>
  (["Verdict", "Conclusion"].includes(column) ? TONES.find(([start]) => text.startsWith(start))?.[1] : null);

const tableRow = (section, group, texts, record) => {
  const method = record?.method ?? BY_LABEL.get(texts[0]);
  const path = group && record?.variant && ROW.has(rowPath(group, method, record.variant))
    ? `cell:${rowPath(group, method, record.variant)}/${record.metric ?? group.main}` : null;
  const cells = texts.map((text, n) => ({ text, sort: sortKey(text), tone: text === DASH ? "quiet" : toneOf(section.columns[n], text),
    open: n === 0 ? path : null }));
  return { cells, record, method, records: record ? [record] : undefined, ours: method === DATA.ours && record?.variant === FULL };
};

const keepsRow = (name, section, { cells, record, method }) => {
  const published = name === "published";
  if (published && !chosen("benchmark", record.benchmark)) return false;
  if (published && !chosen("metric", record.metric)) return false;
  if (state.complete && published && record.verdict === "not run") return false;
  if (!chosen("method", method)) return false;
  return holds([section.title, method ?? "", ...cells.map((cell) => cell.text)].join(" "), words());
};

// Column by column: what it is sorted by, and the cell, which is only made for the rows of the present page.
const plainNumber = (by, text) => [by, (run) => ({ text: isNumber(by(run)) ? text(by(run), run) : DASH })];
const RUN_COLUMNS = [
  { id: "run", title: "Run", of: [(run) => run.row.label, (run) => ({ text: run.row.label, open: `run:${run.path}` })] },
  { id: "status", title: "Status", of: [(run) => run.status, (run) => ({ text: run.status, tone: run.status === "done" ? "quiet" : "bad",
    flag: field(run, "error")?.slice(0, 60) })] },
  { id: "benchmark", title: "Benchmark", of: [(run) => run.group.id, (run) => {
    const place = `${run.group.protocol}, ${run.group.profile}`;
    return { text: run.group.title, sub: place, plainSub: place };
  }] },
  { id: "variant", title: "Variant", of: [(run) => run.row.variant, (run) => ({ text: run.row.variant })] },
  { id: "seed", title: "Seed", of: plainNumber((run) => run.seed, String) },
  { id: "score", title: "Main metric, test", first: "down", of: plainNumber((run) => scoreOf(run, run.group.main),
    (x, { group }) => `${DATA.metrics[group.main].title} ${show(group.main, x)}`) },
  { id: "valid", title: "Validation", first: "down", of: plainNumber((run) => scoreOf(run, run.group.main, "valid"), (x, { group }) => show(group.main, x)) },
  { id: "epoch", title: "Epoch", of: [(run) => epochsOf(run)[0] ?? null, (run) => ({ text: epochsOf(run).join(", ") || DASH })] },
  { id: "time", title: "Time (s)", of: plainNumber((run) => field(run, "time_s"), (x) => x.toFixed(1)) },
  { id: "digest", title: "Digest", of: [(run) => field(run, "digest"), (run) => ({ text: field(run, "digest")?.slice(0, 8) ?? DASH })] },
].map((column) => ({ ...column, numeric: ["seed", "score", "valid", "epoch", "time"].includes(column.id), below: "Protocol, profile" }));
const runText = (run) => `${methodText(run.row.method)} ${run.row.variant} ${groupText(run.group)} ${metricText(run.group.main)} ` +
  `seed ${run.seed} ${run.status} ${field(run, "digest") ?? ""} ${field(run, "error") ?? ""}`;

const runsHere = () => {
  const terms = words();
  return RUNS.filter((run) => run.group.data === state.data && chosen("benchmark", run.group.id) && chosen("method", run.row.method) &&
    (!state.status || run.status === state.status) && (!state.complete || run.status === "done") &&
    (!terms.length || holds(runText(run), terms)));
};

const runRow = (run) => ({
  sortKey: (column) => RUN_COLUMNS[column].of[0](run),
  get cells() { return RUN_COLUMNS.map((column) => column.of[1](run)); },
  get records() { return [runRecord(run)]; },
});

const runRecord = (run) => {
  const { group, row } = run;
  const scores = (split) => Object.fromEntries(group.metrics.map((metric) => [`${split}_${metric}`, scoreOf(run, metric, split)]));
  const copied = ["time_s", "n_parameters", "peak_memory_bytes", "digest", "predictions", "started_at", "finished_at", "error"];
  return {
    data: group.data, benchmark: group.benchmark, protocol: group.protocol, profile: group.profile, method: row.method,
    label: row.label, variant: row.variant, seed: run.seed, status: run.status, ...scores("test"), ...scores("valid"),
    epochs: epochsOf(run).join(" "), commit: pool(field(run, "environment"))?.commit ?? null,
    ...Object.fromEntries(copied.map((name) => [name, field(run, name)])),
  };
};

const runSheets = () => {
  const found = runsHere();
  const count = STATUSES.map((status) => [found.filter((run) => run.status === status).length, status]).filter(([n]) => n);
  const said = [`${many(found.length, "run")}: ${count.map(([n, status]) => `${n.toLocaleString("en")} ${status}`).join(", ") || "none"}.`,
    "One line a run; open it for its configuration, environment, learning curves, digests and errors. Scores of different metrics do not compare."];
  return [{ title: `${DATA.kinds[state.data]}: runs`, columns: RUN_COLUMNS, rows: found.map(runRow), facts: said }];
};

const environments = () => {
  const found = new Map();
  RUNS.forEach((run) => {
    const place = field(run, "environment");
    if (place !== null) found.set(place, (found.get(place) ?? 0) + 1);
  });
  return [...found].map(([place, n]) => ({ ...pool(place), n }));
};

const simpleSheet = (title, columns, lines, said = []) => ({
  title, facts: said, columns: columns.map((name, n) => ({ id: name, title: name, numeric: looksNumeric(lines.map((line) => String(line[n]))) })),
  rows: lines.map((line) => ({ cells: line.map((value) => ({ text: String(value ?? DASH), sort: sortKey(String(value ?? DASH)) })) })),
});

const describe = (value) => (Array.isArray(value) ? value.map(describe).join(", ") : value !== null && typeof value === "object"
  ? Object.entries(value).map(([name, inner]) => `${name} ${describe(inner)}`).join(", ") : String(value));

const aboutSheets = () => [
  simpleSheet("Files this page was made from", ["File", "Bytes", "SHA-256"],
    DATA.files.map((file) => [file.path, file.bytes.toLocaleString("en"), file.sha256]),
    ["Below the results folder of the checkout; the same files give the same page, byte for byte."]),
  simpleSheet("Versions of the data", ["Benchmark", "Data digest", "Samples", "Licence", "Citation"],
    groupsHere().map((group) => [group.name, group.data_digests.map((digest) => digest.slice(0, 12)).join(", "),
      Object.entries(group.counts).map(([split, n]) => `${n.toLocaleString("en")} ${split}`).join(", ") || DASH, group.licence, group.citation]),
    ["First digits of the digests of the prepared files; more than one where seeds read different files. In full in each run."]),
  simpleSheet("Environments of the runs", ["Runs", "Commit", "State", "Device", "Versions", "Further"],
    environments().map(({ n, commit, dirty, device, versions, ...further }) =>
      [n, commit ?? "unknown", dirty === false ? "clean" : dirty ? "changed files" : "unknown", device ?? "unknown", describe(versions ?? {}), describe(further)])),
  simpleSheet("Methods", ["Method", "Name", "Year", "Citation"],
    DATA.methods.map((method) => [method.label, method.name, method.year ?? DASH, method.citation])),
];

const VIEWS = {
  methods: { title: "Methods", sheets: methodSheets },
  ablation: { title: "Ablations", sheets: () => tableSheets("ablation"), intro: DATA.tables.ablation.intro },
  significance: { title: "Significance", sheets: () => tableSheets("significance"), intro: DATA.tables.significance.intro },
  published: { title: "Published", sheets: () => tableSheets("published"), intro: DATA.tables.published.intro },
  plots: { title: "Plots", sheets: methodSheets },
  cost: { title: "Cost", sheets: () => tableSheets("cost"), intro: DATA.tables.cost.intro },
  runs: { title: "Runs", sheets: runSheets },
  about: { title: "Provenance", sheets: aboutSheets },
};
