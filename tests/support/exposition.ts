/** Reads Prometheus' text exposition format 0.0.4 by its published grammar, and refuses what does not follow it. */

export interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

export interface Family {
  readonly type: string;
  readonly help: string;
  readonly samples: readonly Sample[];
}

const NAME = /^[a-zA-Z_:][a-zA-Z0-9_:]*/;
const LABEL = /^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"/;
const SUFFIXES: Readonly<Record<string, readonly string[]>> = {
  histogram: ["_bucket", "_sum", "_count"],
  counter: [""],
  gauge: [""],
};

function numberOf(text: string): number {
  if (text === "+Inf") return Number.POSITIVE_INFINITY;
  if (!/^[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?$/.test(text)) throw new Error(`no number: ${text}`);
  return Number(text);
}

function sampleOf(line: string): Sample {
  const name = NAME.exec(line)?.[0];
  if (name === undefined) throw new Error(`no sample: ${line}`);
  let rest = line.slice(name.length);
  const labels: Record<string, string> = {};
  if (rest.startsWith("{")) {
    rest = rest.slice(1);
    while (!rest.startsWith("}")) {
      const match = LABEL.exec(rest);
      const [all, key, value] = match ?? [];
      if (all === undefined || key === undefined || value === undefined) throw new Error(`no label: ${line}`);
      if (key in labels) throw new Error(`a label twice: ${line}`);
      labels[key] = value.replace(/\\(.)/g, (_, letter) => (letter === "n" ? "\n" : letter));
      rest = rest.slice(all.length).replace(/^,/, "");
    }
    rest = rest.slice(1);
  }
  const value = /^ (\S+)$/.exec(rest)?.[1];
  if (value === undefined) throw new Error(`no value: ${line}`);
  return { name, labels, value: numberOf(value) };
}

/** Cumulative buckets that end in +Inf = count, and a sum, for each set of labels. */
function checkHistogram(name: string, samples: readonly Sample[]): void {
  const series = new Map<string, { last: number; le: number; inf?: number; sum?: number; count?: number }>();
  for (const { name: full, labels, value } of samples) {
    const { le, ...others } = labels;
    const key = JSON.stringify(Object.entries(others).sort());
    const one = series.get(key) ?? { last: 0, le: Number.NEGATIVE_INFINITY };
    series.set(key, one);
    if (full === `${name}_sum`) one.sum = value;
    if (full === `${name}_count`) one.count = value;
    if (full !== `${name}_bucket`) continue;
    const bound = numberOf(le ?? "");
    if (bound <= one.le || value < one.last) throw new Error(`buckets out of order: ${name}`);
    one.le = bound;
    one.last = value;
    if (bound === Number.POSITIVE_INFINITY) one.inf = value;
  }
  for (const { inf, count, sum } of series.values()) {
    if (inf === undefined || inf !== count || sum === undefined) throw new Error(`an incomplete histogram: ${name}`);
  }
}

/** The families of a whole exposition by name. @throws Error for anything that is not in the format */
export function parseExposition(text: string): ReadonlyMap<string, Family> {
  if (!text.endsWith("\n")) throw new Error("the last line has no end");
  const families = new Map<string, { type: string; help: string; samples: Sample[] }>();
  const seen = new Set<string>();
  let help: { name: string; text: string } | undefined;
  let current: string | undefined;
  for (const line of text.split("\n")) {
    if (line === "") continue;
    const comment = /^# (HELP|TYPE) (\S+) (.*)$/.exec(line);
    if (comment) {
      const [, kind, name = "", rest = ""] = comment;
      if (kind === "HELP") {
        help = { name, text: rest };
        continue;
      }
      if (help?.name !== name || families.has(name) || !(rest in SUFFIXES)) throw new Error(`out of place: ${line}`);
      families.set(name, { type: rest, help: help.text, samples: [] });
      current = name;
      continue;
    }
    const sample = sampleOf(line);
    const family = families.get(current ?? "");
    const fits = SUFFIXES[family?.type ?? ""]?.some((suffix) => sample.name === `${current}${suffix}`);
    const identity = `${sample.name}${JSON.stringify(Object.entries(sample.labels).sort())}`;
    if (!family || !fits || seen.has(identity)) throw new Error(`out of place: ${line}`);
    seen.add(identity);
    family.samples.push(sample);
  }
  for (const [name, { type, samples }] of families) if (type === "histogram") checkHistogram(name, samples);
  return families;
}

/** The value of one sample; undefined where there is none. */
export function figure(
  families: ReadonlyMap<string, Family>,
  name: string,
  labels: Readonly<Record<string, string>> = {},
): number | undefined {
  const family = [...families].find(([of]) => name === of || name.startsWith(`${of}_`))?.[1];
  const exact = families.get(name) ?? family;
  const wanted = JSON.stringify(Object.entries(labels).sort());
  return exact?.samples.find((one) => one.name === name && JSON.stringify(Object.entries(one.labels).sort()) === wanted)
    ?.value;
}
