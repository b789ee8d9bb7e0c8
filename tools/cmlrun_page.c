/* A profile for other eyes: as a trace file, and as one page of HTML that holds its data as JSON and draws it itself. */
#include "cmlrun_profile.h"

#include <stdlib.h>

#include "json_write.h"

static double microseconds(uint64_t ns) { return (double)ns * 1e-3; }

static double per_ns(uint64_t amount, uint64_t ns) { return ns ? (double)amount / (double)ns : 0; }

static void put_real(cml_json *j, const char *key, double v) { cml_json_key(j, key), cml_json_real(j, v); }

/* ---- trace ---- */

static void trace_name(cml_json *j, const char *what, const char *name) {
  cml_json_open_flat(j, '{');
  cml_json_put_text(j, "ph", "M");
  cml_json_put_uint(j, "pid", 1);
  cml_json_put_uint(j, "tid", 1);
  cml_json_put_text(j, "name", what);
  cml_json_key(j, "args");
  cml_json_open(j, '{');
  cml_json_put_text(j, "name", name);
  cml_json_close(j, '}');
  cml_json_close(j, '}');
}

void cmlrun_trace_json(const cmlrun_profile *p, const char *model, cml_buffer *out) {
  cml_json j = cml_json_over(out);
  cml_json_open(&j, '{');
  cml_json_put_text(&j, "displayTimeUnit", "ms");
  cml_json_key(&j, "traceEvents");
  cml_json_open(&j, '[');
  trace_name(&j, "process_name", model);
  trace_name(&j, "thread_name", "operations");
  for (size_t i = 0; i < p->event_count; i++) {
    const cmlrun_event *e = &p->events[i];
    uint64_t ns = e->end_ns - e->begin_ns;
    cml_json_open_flat(&j, '{');
    cml_json_put_text(&j, "name", *e->name ? e->name : e->type);
    cml_json_put_text(&j, "cat", e->type);
    cml_json_put_text(&j, "ph", "X");
    cml_json_put_uint(&j, "pid", 1);
    cml_json_put_uint(&j, "tid", 1);
    put_real(&j, "ts", microseconds(e->begin_ns - p->events[0].begin_ns));
    put_real(&j, "dur", microseconds(ns));
    cml_json_key(&j, "args");
    cml_json_open(&j, '{');
    cml_json_put_text(&j, "operator", e->type);
    cml_json_put_text(&j, "outputs", e->shapes);
    cml_json_put_uint(&j, "flops", e->flops);
    cml_json_put_uint(&j, "bytes", e->bytes);
    put_real(&j, "share_of_peak", cmlrun_share(&p->peaks, e->flops, e->bytes, ns));
    cml_json_close(&j, '}');
    cml_json_close(&j, '}');
  }
  cml_json_close(&j, ']');
  cml_json_close(&j, '}');
}

/* ---- page ---- */

static void put_events(cml_json *j, const cmlrun_profile *p) {
  cml_json_key(j, "events");
  cml_json_open(j, '[');
  for (size_t i = 0; i < p->event_count; i++) {
    const cmlrun_event *e = &p->events[i];
    cml_json_open_flat(j, '{');
    cml_json_put_text(j, "type", e->type);
    cml_json_put_text(j, "name", e->name);
    cml_json_put_text(j, "shape", e->shapes);
    put_real(j, "at", microseconds(e->begin_ns - p->events[0].begin_ns));
    put_real(j, "us", microseconds(e->end_ns - e->begin_ns));
    put_real(j, "gflops", per_ns(e->flops, e->end_ns - e->begin_ns));
    put_real(j, "gbytes", per_ns(e->bytes, e->end_ns - e->begin_ns));
    put_real(j, "share", cmlrun_share(&p->peaks, e->flops, e->bytes, e->end_ns - e->begin_ns));
    cml_json_close(j, '}');
  }
  cml_json_close(j, ']');
}

static void put_plan(cml_json *j, const cml_executable *executable) {
  size_t n = cml_executable_plan(executable, NULL, 0);
  cml_planned_value *values = calloc(n + 1, sizeof *values);
  if (values) cml_executable_plan(executable, values, n);
  cml_json_key(j, "plan");
  cml_json_open(j, '[');
  for (size_t i = 0; values && i < n; i++) {
    cml_json_open_flat(j, '{');
    cml_json_put_text(j, "name", values[i].name);
    cml_json_put_uint(j, "offset", values[i].offset);
    cml_json_put_uint(j, "bytes", values[i].bytes);
    cml_json_put_uint(j, "first", values[i].first);
    cml_json_put_uint(j, "last", values[i].last);
    cml_json_close(j, '}');
  }
  cml_json_close(j, ']');
  free(values);
}

static const char head[] =
    "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>cmlrun bench</title><style>\n"
    ":root{color-scheme:light dark;--text:#1b1f24;--back:#fff;--line:#d0d7de;--soft:#f3f5f7;--dim:#57606a}\n"
    "@media(prefers-color-scheme:dark){:root{--text:#e6edf3;--back:#0d1117;--line:#30363d;--soft:#161b22;--dim:#8b949e}}\n"
    "body{font:14px/1.45 system-ui,sans-serif;color:var(--text);background:var(--back);margin:24px auto;max-width:1200px;padding:0 16px}\n"
    "h1{font-size:20px;overflow-wrap:anywhere}h2{font-size:15px;margin:28px 0 6px}p{color:var(--dim);margin:4px 0}\n"
    "svg{display:block;width:100%;background:var(--soft);border:1px solid var(--line)}svg rect{stroke:var(--back);stroke-width:.5}\n"
    "table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}td,th{padding:3px 8px;border-bottom:1px solid var(--line);text-align:right}\n"
    "td:first-child,th:first-child,td.t{text-align:left;overflow-wrap:anywhere}th{cursor:pointer;user-select:none;position:sticky;top:0;background:var(--back)}\n"
    "#tip{min-height:1.5em}label{color:var(--dim)}</style>\n"
    "<h1 id=title></h1><p id=summary></p><h2>Timeline of one run</h2><svg id=time height=90></svg><p id=tip>Point at an operation.</p>\n"
    "<h2>Memory plan: the arena's bytes (upwards) over steps</h2><svg id=plan height=260></svg><p id=plantip></p>\n"
    "<h2>Operators</h2><table id=table></table><h2>Operations</h2><table id=each></table>\n<script type='application/json' id=data>";

static const char tail[] =
    "</script><script>\n"
    "'use strict';const D=JSON.parse(document.getElementById('data').textContent),$=i=>document.getElementById(i),NS='http://www.w3.org/2000/svg';\n"
    "const hue=s=>{let h=7;for(const c of s)h=(h*31+c.codePointAt(0))%360;return`hsl(${h} 55% 55%)`},f=(x,n)=>x.toFixed(n);\n"
    "const size=b=>b<1e4?b+' B':b<1e7?f(b/1e3,1)+' kB':f(b/1e6,1)+' MB';\n"
    "$('title').textContent=D.model;$('summary').textContent=`median ${f(D.median_ms,4)} ms; arena ${size(D.arena)}, packed weights ${size(D.packed)}; "
    "measured peaks ${f(D.peak_gflops,1)} GFLOP/s, ${f(D.peak_gbytes,1)} GB/s`;\n"
    "function draw(svg,w,h,boxes,tip){svg.setAttribute('viewBox',`0 0 ${w} ${h}`);svg.setAttribute('preserveAspectRatio','none');for(const b of boxes){\n"
    "const r=document.createElementNS(NS,'rect');for(const k of['x','y','width','height'])r.setAttribute(k,b[k]);r.setAttribute('fill',hue(b.kind));\n"
    "r.setAttribute('vector-effect','non-scaling-stroke');r.onmouseenter=()=>tip.textContent=b.text;const t=document.createElementNS(NS,'title');"
    "t.textContent=b.text;r.append(t);svg.append(r)}}\n"
    "const end=D.events.reduce((m,e)=>Math.max(m,e.at+e.us),1e-9);\n"
    "draw($('time'),end,90,D.events.map(e=>({x:e.at,y:10,width:e.us,height:70,kind:e.type,text:`${e.type} ${e.name}  ${e.shape}  ${f(e.us,1)} us, "
    "${f(e.gflops,1)} GFLOP/s, ${f(e.gbytes,1)} GB/s, ${f(100*e.share,0)} % of the peak`})),$('tip'));\n"
    "const steps=D.plan.reduce((m,v)=>Math.max(m,v.last+1),1),top_=D.plan.reduce((m,v)=>Math.max(m,v.offset+v.bytes),1);\n"
    "draw($('plan'),steps,top_,D.plan.map(v=>({x:v.first,y:top_-v.offset-v.bytes,width:v.last-v.first+1,height:v.bytes,kind:v.name,"
    "text:`${v.name}: ${size(v.bytes)} at ${v.offset}, steps ${v.first} to ${v.last}`})),$('plantip'));\n"
    "function table(el,cols,rows){let by=cols.findIndex(c=>c.sort),down=true;const show=()=>{el.replaceChildren();const tr=el.createTHead().insertRow();\n"
    "cols.forEach((c,i)=>{const th=document.createElement('th');th.textContent=c.name+(i==by?down?' \\u2193':' \\u2191':'');"
    "th.onclick=()=>{down=i==by?!down:true;by=i;show()};tr.append(th)});\n"
    "const k=cols[by].key,s=[...rows].sort((a,b)=>(a[k]<b[k]?-1:a[k]>b[k]?1:0)*(down?-1:1)),body=el.createTBody();\n"
    "for(const r of s){const row=body.insertRow();for(const c of cols){const d=row.insertCell();if(c.text)d.className='t';d.textContent=c.show?c.show(r[c.key]):r[c.key]}}};show()}\n"
    "const ms=x=>f(x,4),one=x=>f(x,1),pc=x=>f(100*x,1)+' %';\n"
    "table($('table'),[{name:'operator',key:'type',text:1},{name:'calls',key:'calls'},{name:'ms a run',key:'ms',show:ms,sort:1},{name:'share of time',key:'part',show:pc},"
    "{name:'GFLOP/s',key:'gflops',show:one},{name:'GB/s',key:'gbytes',show:one},{name:'of the peak',key:'share',show:pc}],D.operators);\n"
    "table($('each'),[{name:'operation',key:'name',text:1},{name:'operator',key:'type',text:1},{name:'outputs',key:'shape',text:1},{name:'us',key:'us',show:one,sort:1},"
    "{name:'GFLOP/s',key:'gflops',show:one},{name:'GB/s',key:'gbytes',show:one},{name:'of the peak',key:'share',show:pc}],D.events);\n"
    "</script></html>\n";

/* JSON within a script: no '<' may stand in it, so that no text ends the script. */
static void append_escaped(cml_buffer *out, const cml_buffer *json) {
  for (size_t i = 0, from = 0; i <= json->size; i++) {
    if (i < json->size && json->data[i] != '<') continue;
    cml_buffer_append(out, json->data + from, i - from);
    if (i < json->size) cml_buffer_text(out, "\\u003c");
    from = i + 1;
  }
}

void cmlrun_profile_html(const cmlrun_profile *p, const char *model, const cml_executable *executable, double median_ms, cml_buffer *out) {
  cml_buffer data = CML_BUFFER_INIT;
  cml_json j = cml_json_over(&data);
  uint64_t arena, packed, live, total = 0;
  cml_executable_memory(executable, &arena, &packed, &live);
  for (size_t i = 0; i < p->operator_count; i++) total += p->operators[i].ns;
  cml_json_open(&j, '{');
  cml_json_put_text(&j, "model", model);
  put_real(&j, "median_ms", median_ms);
  cml_json_put_uint(&j, "arena", arena);
  cml_json_put_uint(&j, "packed", packed);
  put_real(&j, "peak_gflops", p->peaks.gflops);
  put_real(&j, "peak_gbytes", p->peaks.gbytes);
  cml_json_key(&j, "operators");
  cml_json_open(&j, '[');
  for (size_t i = 0; i < p->operator_count; i++) {
    const cmlrun_operator *o = &p->operators[i];
    cml_json_open_flat(&j, '{');
    cml_json_put_text(&j, "type", o->type);
    cml_json_put_uint(&j, "calls", o->calls / p->runs);
    put_real(&j, "ms", (double)o->ns / 1e6 / (double)p->runs);
    put_real(&j, "part", total ? (double)o->ns / (double)total : 0);
    put_real(&j, "gflops", per_ns(o->flops, o->ns));
    put_real(&j, "gbytes", per_ns(o->bytes, o->ns));
    put_real(&j, "share", cmlrun_share(&p->peaks, o->flops, o->bytes, o->ns));
    cml_json_close(&j, '}');
  }
  cml_json_close(&j, ']');
  put_events(&j, p);
  put_plan(&j, executable);
  cml_json_close(&j, '}');
  cml_buffer_text(out, head);
  append_escaped(out, &data);
  cml_buffer_text(out, tail);
  if (data.failed) out->failed = true;
  cml_buffer_free(&data);
}
