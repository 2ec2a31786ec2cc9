"""The style sheet of the report page: light and dark, desktop and phone."""

STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#5b6570;--line:#d8dee4;--back:#fff;--box:#f6f8fa;
--link:#0550ae;--good:#1a7f37;--bad:#b35900}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9aa5b1;--line:#30363d;--back:#0d1117;
--box:#161b22;--link:#79b8ff;--good:#56d364;--bad:#f0a35e}}
*{box-sizing:border-box}
body{margin:0;background:var(--back);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:72rem;margin:0 auto;padding:1.5rem 1rem 4rem}
header{border-bottom:1px solid var(--line);margin-bottom:1rem}
h1{font-size:1.6rem;margin:.2rem 0;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:2rem 0 .6rem;overflow-wrap:anywhere}
h4{font-size:.8rem;font-weight:600;margin:.8rem 0 .2rem;color:var(--soft)}
a{color:var(--link);text-decoration:none}a:hover{text-decoration:underline}
.note,small{color:var(--soft);font-size:.875rem}
header p{color:var(--soft);margin:.2rem 0 1rem}
.x{overflow-x:auto;max-width:100%}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.35rem .7rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th{color:var(--soft);font-weight:600}
th:first-child,td:first-child{text-align:left;padding-left:0}
.row{display:flex;flex-wrap:wrap;gap:1.5rem;align-items:flex-start;margin:.6rem 0 1rem}
svg{display:block;font:12px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
svg.fit{max-width:100%;height:auto}
svg .tick{fill:var(--ink)}svg .axis{fill:var(--soft)}
svg .missing{fill:none;stroke:var(--line);stroke-dasharray:3 3}
svg a:hover rect,svg a:focus rect{stroke:var(--ink);stroke-width:2}
svg .grid{stroke:var(--line)}svg .range{stroke:var(--soft);stroke-width:2}
svg .dot{fill:var(--link)}svg .line{fill:none;stroke:var(--link);stroke-width:2}
details{border-top:1px solid var(--line);padding:.35rem 0}
details details{margin-left:1rem}
summary{cursor:pointer;padding:.15rem 0;overflow-wrap:anywhere}
summary:hover{color:var(--link)}
:target{scroll-margin-top:3rem;border-top:2px solid var(--link)}
.sample span{display:inline-block;min-width:2.6rem;text-align:right;font-weight:600;
font-variant-numeric:tabular-nums;margin-right:.4rem}
.good{color:var(--good)}.bad{color:var(--bad)}.none{color:var(--soft)}
pre{background:var(--box);border:1px solid var(--line);border-radius:6px;
padding:.6rem .8rem;margin:0;font:13px/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;
white-space:pre-wrap;overflow-wrap:anywhere;max-height:24rem;overflow-y:auto}
mark{background:#ffe08a;color:#1b1f24;border-radius:2px}
.gap{display:block;margin:.5rem 0;padding:.1rem 0;color:var(--soft);
border-block:1px dashed var(--line);font-family:system-ui,sans-serif}
@media(max-width:40rem){main{padding:1rem .8rem 3rem}h1{font-size:1.3rem}
details details{margin-left:.5rem}th,td{padding:.35rem .5rem}
td:first-child{white-space:normal;overflow-wrap:break-word}}
@media print{details{break-inside:avoid}pre{max-height:none}}
"""
