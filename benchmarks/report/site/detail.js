// The dialog: one result with its runs, or one run with everything its record says.
const dialog = byId("detail");

const drawDetail = () => {
  const [kind, path] = [state.open.slice(0, state.open.indexOf(":")), state.open.slice(state.open.indexOf(":") + 1)];
  const inner = kind === "run" ? runDetail(RUN.get(path)) : kind === "cell" ? cellDetail(path) : null;
  if (!inner) {
    if (dialog.open) dialog.close();
    return;
  }
  dialog.replaceChildren(el("div", { class: "bar" }, steps > 1 ? button("Back", () => history.back(), { class: "plain" }) : el("span"), button("Close", closeDetail, { class: "plain" })), ...kept(inner));
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
};
const closeDetail = () => update({ open: "" }, true);
dialog.addEventListener("cancel", (event) => { event.preventDefault(); closeDetail(); });
dialog.addEventListener("click", (event) => { if (event.target === dialog) closeDetail(); });

const heading = (group, ...names) => [
  el("h2", { id: "detail-title" }, names.join(" · ")),
  el("p", { class: "said" }, `${DATA.kinds[group.data]} · ${group.name}`),
  group.data === "twin" ? el("p", { class: "warning" }, DATA.warning) : null,
];

const cellDetail = (path) => {
  const place = path.lastIndexOf("/");
  const [rowName, metric] = [path.slice(0, place), path.slice(place + 1)];
  const row = ROW.get(rowName);
  const group = GROUPS.find((known) => row && known.rows.includes(row));
  if (!row || !group.metrics.includes(metric)) return null;
  const cell = row.cells[metric];
  const ablation = DATA.tables.ablation.parts[group.data].filter((section) => section.group === group.id).flatMap((section) =>
    section.rows.map((texts, n) => ({ section, texts, record: section.records[n] })))
    .find(({ record }) => record.method === row.method && record.variant === row.variant && record.metric === metric);
  return [
    ...heading(group, `${row.label}${row.variant === FULL ? "" : ` (${row.variant})`}`, DATA.metrics[metric].heading),
    el("p", { class: "big" }, cell ? cell.text : DASH, cell ? el("span", { class: "brief" }, "mean ± standard deviation over seeds (number of runs)") : null),
    row.lacks.length ? el("ul", { class: "lacks" }, row.lacks.map(([seed, why]) => el("li", {}, `${seed === null ? "all seeds" : `seed ${seed}`}: ${why}`))) : null,
    cell?.told ? [el("h3", {}, `${DATA.ourLabel} against this row`), el("p", { class: "said" }, "Paired t test by seed, two-sided, level 0.05; Holm's correction over the comparisons of this metric in this table."), toldFacts(DATA.told, cell.told)] : null,
    ablation ? [el("h3", {}, "This variant against the full form"), toldFacts(ablation.section.columns, ablation.texts)] : null,
    el("h3", {}, "Runs"),
    runTable(group, row, metric),
    el("h3", {}, "What the numbers mean"),
    el("p", { class: "said" }, group.facts.join(" ")),
  ];
};
const toldFacts = (names, texts) => facts(names.map((name, n) => [name, texts[n]]).slice(1));

const runTable = (group, row, metric) => {
  const runs = RUNS.filter((run) => run.row === row);
  const lines = runs.map((run) => el("tr", {},
    el("th", { scope: "row" }, el("button", { type: "button", class: "cell", click: () => update({ open: `run:${run.path}` }, true) }, `seed ${run.seed}`)),
    el("td", {}, run.status), el("td", { class: "number" }, show(metric, scoreOf(run, metric))), el("td", { class: "number" }, show(metric, scoreOf(run, metric, "valid"))),
    el("td", { class: "number" }, epochsOf(run).join(", ") || DASH), el("td", {}, field(run, "digest")?.slice(0, 8) ?? DASH)));
  const names = ["Run", "Status", "Test", "Validation", "Epoch", "Digest"];
  return scroller("Runs", el("table", {}, el("caption", { class: "spoken" }, "Runs of this result"),
    el("thead", {}, el("tr", {}, names.map((name, n) => el("th", { scope: "col", class: n > 1 && n < 5 ? "number" : null }, name)))), el("tbody", {}, lines)));
};

const runDetail = (run) => {
  if (!run) return null;
  const { group, row } = run;
  const value = (name) => field(run, name);
  const error = value("error");
  return [
    ...heading(group, row.label, ...(row.variant === FULL ? [] : [row.variant]), `seed ${run.seed}`),
    run.status === "done" ? null : el("p", { class: "warning" }, `This run is ${run.status}: no table counts it.`),
    error ? [el("h3", {}, run.status === "missing" ? "Why it is wanted" : "Error"), el("pre", { class: "error" }, error)] : null,
    run.status === "missing" ? null : [
      el("h3", {}, "Scores"), scoreTable(run),
      el("h3", {}, "Learning curves"), curveFigures(run),
      el("h3", {}, "Selection"), facts(selectionFacts(run)),
      el("h3", {}, "Provenance"), facts(provenanceFacts(run)),
      el("h3", {}, "Configuration"), configuration(run),
      value("diagnostics") ? [el("h3", {}, "Diagnostics"), diagnostics(run)] : null,
    ],
    el("h3", {}, "Again"), facts(againFacts(run)),
  ];
};

const scoreTable = (run) => {
  const folds = field(run, "folds") ?? [];
  const names = ["Metric", "Test", "Validation", ...folds.map((_, n) => `Fold ${n}`)];
  const lines = run.group.metrics.map((metric, n) => el("tr", {}, el("th", { scope: "row" }, DATA.metrics[metric].heading),
    [scoreOf(run, metric), scoreOf(run, metric, "valid"), ...folds.map((fold) => fold?.[n])].map((score) => el("td", { class: "number" }, show(metric, score)))));
  return scroller("Scores", el("table", {}, el("caption", { class: "spoken" }, "Scores of this run"),
    el("thead", {}, el("tr", {}, names.map((name, n) => el("th", { scope: "col", class: n ? "number" : null }, name)))), el("tbody", {}, lines)));
};

const curveFigures = (run) => {
  const curve = curveOf(run);
  if (!curve) return el("p", { class: "said" }, "None is committed: the method is not trained by epochs, or the run ended before its first one.");
  const score = `${DATA.metrics[curve.metric]?.heading ?? curve.metric}, ${curve.split === "test" ? "TEST" : "validation"} data`;
  const epochs = epochsOf(run);
  return [el("div", { class: "plots" }, curvePlot("Loss on training data", curve.folds, "loss", epochs, 1), curvePlot(score, curve.folds, "score", epochs, curve.metric in DATA.metrics ? factor(curve.metric) : 1)),
    el("p", { class: "said" }, `${many(curve.folds.length, "fold")}; the ring is the selected epoch. Rounded, and thinned where long; in full in results/curves.`)];
};

const selectionFacts = (run) => {
  const said = field(run, "selection") ?? {};
  const by = said.metric in DATA.metrics ? (value) => show(said.metric, value) : String;
  return [["Selected by", `${DATA.metrics[said.metric]?.title ?? said.metric ?? DASH} on ${run.group.selection === "test" ? "the TEST set" : "validation data"}`],
    ["Epoch", epochsOf(run).join(", ") || DASH], ["Value there", (said.values ?? []).map(by).join(", ") || DASH]];
};

const provenanceFacts = (run) => {
  const value = (name) => field(run, name);
  const told = pool(value("environment")) ?? {};
  const { commit, dirty, versions, ...further } = told;
  const together = pool(value("together"));
  return [
    ["Commit", `${commit ?? "unknown"}${dirty === false ? ", clean" : dirty ? ", with changed files" : ""}`],
    ["Digest", value("digest") ?? DASH], ["Digest of the predictions", value("predictions") || DASH],
    ["Started", value("started_at") ?? DASH], ["Finished", value("finished_at") ?? DASH],
    ["Versions", describe(versions ?? {}) || DASH],
    ...Object.entries(further).map(([name, inner]) => [name, describe(inner)]),
    ["Trained together with seeds", together ? describe(together) : DASH],
    ["Time", isNumber(value("time_s")) ? `${value("time_s")} s` : DASH],
    ["Peak memory", isNumber(value("peak_memory_bytes")) ? `${(value("peak_memory_bytes") / 2 ** 20).toFixed(0)} MiB` : DASH],
    ["Parameters", value("n_parameters")?.toLocaleString("en") ?? DASH],
  ];
};

const configuration = (run) => {
  const parts = Object.entries(pool(field(run, "what")) ?? {}).map(([name, place]) => [name, pool(place)]);
  return facts(parts.flatMap(([name, inner]) => (inner !== null && typeof inner === "object" && !Array.isArray(inner)
    ? Object.entries(inner).map(([key, deep]) => [`${name}.${key}`, typeof deep === "object" ? JSON.stringify(deep) : String(deep)])
    : [[name, typeof inner === "object" ? JSON.stringify(inner) : String(inner)]])));
};

const diagnostics = (run) => {
  const [place, values] = field(run, "diagnostics");
  return facts(pool(place).map((name, n) => [name, String(values[n])]));
};

// A command is only offered where its words cannot mean anything else to a shell.
const againFacts = (run) => {
  const { group, row } = run;
  const named = { benchmark: group.benchmark, protocol: group.protocol, data: group.data, profile: group.profile, method: row.method, variant: row.variant, seeds: run.seed };
  const safe = Object.values(named).every((word) => /^[\w.][\w.-]*$/.test(String(word)));
  const command = `clcr run ${Object.entries(named).map(([name, word]) => `--${name} ${word}`).join(" ")}`;
  return [["Command", safe ? command : "none: a name of this run is not a plain word"],
    ["Log", `results/runs/${group.id}/${row.method}/${row.variant}/seed-${String(run.seed).padStart(3, "0")}/log.txt, where it was run; logs are not committed`]];
};
