"""The report's style sheet: quiet, readable, light and dark, on paper and on a telephone."""

STYLE = """\
:root { color-scheme: light dark; --page: #ffffff; --ink: #1c2024; --quiet: #667079; --line: #e2e6ea; --soft: #f5f7f8;
  --note: #fdf6e3; --note-line: #e3c766; }
@media (prefers-color-scheme: dark) {
  :root { --page: #15181b; --ink: #e4e7ea; --quiet: #98a2ab; --line: #2e3439; --soft: #1d2125;
    --note: #26220f; --note-line: #7c6a22; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main, header, footer { max-width: 1440px; margin: 0 auto; padding: 0 clamp(16px, 3vw, 48px); }
header { padding-top: clamp(24px, 4vw, 48px); }
h1 { font-size: clamp(26px, 3.2vw, 36px); line-height: 1.2; margin: 0 0 10px; letter-spacing: -0.015em;
  font-weight: 650; }
h2 { font-size: 22px; line-height: 1.3; margin: 52px 0 6px; letter-spacing: -0.01em; font-weight: 620; }
h3 { font-size: 16px; margin: 26px 0 8px; font-weight: 600; overflow-wrap: anywhere; }
h3 small { font-weight: 400; color: var(--quiet); font-size: 14px; margin-left: 8px; }
p { margin: 0 0 12px; max-width: 76ch; }
.lead { font-size: 18px; }
.quiet, figcaption, footer { color: var(--quiet); font-size: 14px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)); gap: 1px; margin: 26px 0 22px;
  border: 1px solid var(--line); border-radius: 8px; overflow: hidden; }
.tile { background: var(--page); padding: 14px 18px 16px; display: flex; flex-direction: column;
  box-shadow: 0 0 0 1px var(--line); }
.what { color: var(--quiet); font-size: 14px; overflow-wrap: anywhere; }
.value { font-size: 34px; line-height: 1.25; font-weight: 600; letter-spacing: -0.02em;
  font-variant-numeric: tabular-nums; }
.value.long { font-size: 25px; line-height: 1.7; }
.value.words { font-size: 18px; line-height: 1.4; letter-spacing: 0; padding-top: 6px; overflow-wrap: anywhere; }
.value sup { font-size: 55%; }
.was { color: var(--quiet); font-size: 14px; font-variant-numeric: tabular-nums; }
.notes { background: var(--note); border-left: 4px solid var(--note-line); border-radius: 4px; padding: 12px 18px;
  margin: 18px 0; }
.notes ul { margin: 0; padding-left: 18px; max-width: 90ch; }
.tables { display: flex; flex-wrap: wrap; gap: 8px 48px; align-items: flex-start; }
.scroll { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; font-size: 15px; font-variant-numeric: tabular-nums; margin: 12px 0 16px; }
caption { text-align: left; font-weight: 600; padding-bottom: 6px; }
th, td { padding: 6px 14px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 500; color: var(--quiet); }
th[scope=row] { text-align: left; color: var(--ink); padding-left: 0; }
td.words { text-align: left; white-space: normal; }
thead th { vertical-align: bottom; border-bottom: 1px solid var(--quiet); }
.row { display: grid; grid-template-columns: repeat(var(--columns), minmax(0, 1fr)); gap: 10px; margin: 0 0 10px; }
figure { margin: 0; break-inside: avoid; }
.row img { width: 100%; height: auto; display: block; border-radius: 4px;
  outline: 1px solid var(--line); outline-offset: -1px; }
figcaption { line-height: 1.35; padding: 4px 0 2px; }
.score { white-space: nowrap; font-variant-numeric: tabular-nums; color: var(--ink); }
.pair { break-inside: avoid; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 24px; margin: 8px 0 12px; font-size: 14px; color: var(--quiet);
  align-items: center; }
.key { display: inline-block; width: 14px; height: 14px; border-radius: 3px; margin-right: 7px; vertical-align: -2px;
  border: 1px solid var(--line); }
.key.bar { width: 110px; margin: 0 7px; }
.key.line { height: 4px; width: 22px; vertical-align: 3px; border: 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(330px, 100%), 1fr)); gap: 22px 32px;
  margin: 14px 0; }
.charts figure { display: flex; flex-direction: column; justify-content: space-between; }
.charts figcaption { color: var(--ink); font-weight: 600; font-size: 15px; padding: 0 0 2px;
  overflow-wrap: anywhere; }
.charts figcaption small { font-weight: 400; color: var(--quiet); font-size: 14px; }
.charts svg { width: 100%; height: auto; display: block; color: var(--ink); }
.charts svg text { font-family: inherit !important; }
details { border-top: 1px solid var(--line); padding: 8px 0; }
details:last-of-type { border-bottom: 1px solid var(--line); }
summary { cursor: pointer; font-weight: 600; padding: 4px 0; overflow-wrap: anywhere; }
summary small { font-weight: 400; color: var(--quiet); font-size: 14px; margin-left: 8px; }
pre { background: var(--soft); border-radius: 6px; padding: 16px 18px; overflow-x: auto; font-size: 13.5px;
  line-height: 1.5; margin: 8px 0;
  font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
footer { margin-top: 48px; padding-bottom: 40px; }
@media (max-width: 760px) {
  .row { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .value { font-size: 28px; } .value.long { font-size: 18px; }
  .tiles { grid-template-columns: repeat(auto-fill, minmax(140px, 1fr)); } }
@media print {
  :root { color-scheme: light; --page: #fff; --ink: #111; --quiet: #555; --line: #ddd; --soft: #f6f6f6;
    --note: #fff; --note-line: #c9a800; }
  body { font-size: 11pt; } main, header, footer { max-width: none; padding: 0; }
  h2, h3, .legend { break-after: avoid; } .scroll { overflow: visible; } th, td { padding: 5px 8px; }
  .row { grid-template-columns: repeat(var(--columns), minmax(0, 1fr)) !important; }
  .row img, .key { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
  details::details-content { content-visibility: visible; height: auto; } }
"""
