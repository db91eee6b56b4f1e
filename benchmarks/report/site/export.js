// The present view as a file: what is filtered away is not in it, every row of it is, in the present order.
const escapeBy = (table) => {
  const known = Object.keys(table).map((character) => character.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&"));
  const pattern = new RegExp(known.join("|"), "g");
  return (text) => text.trim().split(/\s+/).join(" ").replace(pattern, (found) => table[found]);
};
const markdownText = escapeBy(DATA.escapes.markdown);
const latexText = escapeBy(DATA.escapes.latex);

// Columns and rows as texts; a second line of a cell becomes a column of its own.
const plainTable = (sheet) => {
  const rows = sorted(sheet);
  const doubled = sheet.columns.map((_, n) => rows.some((row) => row.cells[n].sub));
  const title = (column) => [column.over?.title, column.title].filter(Boolean).join(": ");
  const columns = sheet.columns.flatMap((column, n) =>
    (doubled[n] ? [title(column), column.below ?? `${DATA.ourLabel} − row [95 % interval]`] : [title(column)]));
  const told = (cell) => ({ text: [cell.text, cell.mark, cell.flag].filter(Boolean).join(" "), bold: cell.bold });
  const cells = rows.map((row) => row.cells.flatMap((cell, n) =>
    (doubled[n] ? [told(cell), { text: cell.plainSub ?? DASH }] : [told(cell)])));
  const numeric = columns.map((_, n) => looksNumeric(cells.map((row) => row[n].text)));
  return { columns, cells, numeric };
};

const recordsOf = (sheet) => sorted(sheet).flatMap((row) => row.records ?? [
  Object.fromEntries([["section", sheet.title], ...sheet.columns.map((column, n) => [column.title, row.cells[n].text])]),
]);

// A text that a spreadsheet would take for a formula gets an apostrophe before it.
const csvCell = (value) => {
  if (value === null || value === undefined) return "";
  const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};

const asCsv = (sheets) => {
  const records = sheets.flatMap(recordsOf);
  const names = [...new Set(records.flatMap(Object.keys))];
  return [names, ...records.map((record) => names.map((name) => record[name]))]
    .map((line) => line.map(csvCell).join(",")).join("\n").concat("\n");
};

const asJson = (sheets) => `${JSON.stringify({
  suite: DATA.suite, embedded_sha256: DIGEST, data: state.data, view: state.view, link: hashOf(state),
  tables: sheets.map((sheet) => ({ title: sheet.title, facts: sheet.facts, notes: sheet.notes, records: recordsOf(sheet) })),
}, null, 1)}\n`;

const asMarkdown = (sheets) => {
  const blocks = [`# ${markdownText(VIEWS[state.view].title)}`, `## ${DATA.kinds[state.data]}`];
  if (state.data === "twin") blocks.push(`**${DATA.warning}**`);
  sheets.forEach((sheet) => {
    const { columns, cells, numeric } = plainTable(sheet);
    blocks.push(`### ${markdownText(sheet.title)}`);
    if (sheet.facts?.length) blocks.push(sheet.facts.map(markdownText).join(" "));
    const lines = [columns.map(markdownText), numeric.map((right) => (right ? "---:" : "---")),
      ...cells.map((row) => row.map(({ text, bold }) => (bold ? `**${markdownText(text)}**` : markdownText(text))))];
    if (cells.length) blocks.push(lines.map((line) => `| ${line.join(" | ")} |`).join("\n"));
    if (sheet.notes?.length) blocks.push(sheet.notes.map((note) => `- ${markdownText(note)}`).join("\n"));
  });
  return `${blocks.join("\n\n")}\n`;
};

const asLatex = (sheets) => [
  `% ${VIEWS[state.view].title}. ${DATA.kinds[state.data]}. Needs \\usepackage{booktabs,graphicx}.`,
  ...sheets.flatMap(latexTable),
].join("\n").concat("\n");

const latexTable = (sheet) => {
  const { columns, cells, numeric } = plainTable(sheet);
  const said = [...(state.data === "twin" ? [DATA.warning] : []), ...(sheet.facts ?? [])].map(latexText).join(" ");
  const line = (texts) => `${texts.join(" & ")} \\\\`;
  const table = cells.length ? [
    "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%",
    `\\begin{tabular}{${numeric.map((right) => (right ? "r" : "l")).join("")}}`,
    "\\toprule", line(columns.map(latexText)), "\\midrule",
    ...cells.map((row) => line(row.map(({ text, bold }) => (bold ? `\\textbf{${latexText(text)}}` : latexText(text))))),
    "\\bottomrule", "\\end{tabular}}",
  ] : [];
  return ["\\begin{table}[htbp]", "\\centering\\small", `\\caption{${latexText(sheet.title)}. ${said}}`, ...table,
    ...(sheet.notes ?? []).map((note) => `\\par\\smallskip\\footnotesize ${latexText(note)}`), "\\end{table}"];
};

const FORMATS = {
  csv: [asCsv, "text/csv"], json: [asJson, "application/json"], md: [asMarkdown, "text/markdown"],
  tex: [asLatex, "application/x-tex"],
};
const FORMAT_NAMES = { csv: "csv", json: "json", tex: "LaTeX", md: "Markdown" };

const download = (suffix) => {
  const [write, type] = FORMATS[suffix];
  const address = URL.createObjectURL(new Blob([write(VIEWS[state.view].sheets())], { type: `${type};charset=utf-8` }));
  el("a", { href: address, download: `clcr-${state.view}-${state.data}.${suffix}` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
  say(`Downloaded as ${FORMAT_NAMES[suffix]}.`);
};
