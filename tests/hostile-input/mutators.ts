import type { Prng } from "./prng.ts";

const encoder = new TextEncoder();

/** Longest mutated body in bytes: above every limit of the server. */
const LONGEST = 700_000;

/** Changes bytes: bits flipped, parts cut, doubled, inserted, overwritten, joined to `other`. */
export function mutateBytes(choose: Prng, input: Uint8Array, other: Uint8Array): Uint8Array {
  const at = choose.below(input.length + 1);
  const to = at + choose.below(input.length - at + 1);
  const changed = Uint8Array.from(input);
  switch (choose.below(10)) {
    case 0:
    case 1:
    case 2:
      for (let flips = 1 + choose.below(8); flips > 0 && changed.length > 0; flips--) {
        const place = choose.below(changed.length);
        changed[place] = (changed[place] ?? 0) ^ (1 << choose.below(8));
      }
      return changed;
    case 3:
      return input.subarray(0, at);
    case 4:
      return Buffer.concat([input.subarray(0, at), input.subarray(to)]);
    case 5:
      return Buffer.concat([input.subarray(0, to), input.subarray(at)]);
    case 6:
      return Buffer.concat([input.subarray(0, at), choose.bytes(1 + choose.below(64)), input.subarray(at)]);
    case 7:
      return changed.fill(choose.pick([0, 0xff, 0x20, 0x22, 0x5c, 0x7b]), at, to);
    case 8:
      return Buffer.concat([input.subarray(0, at), other.subarray(choose.below(other.length + 1))]);
    default: {
      const parts = Array.from({ length: 1 + choose.below(choose.below(8) === 0 ? 400 : 4) }, () => input);
      return Buffer.concat([...parts, choose.bytes(choose.below(8))]).subarray(0, LONGEST);
    }
  }
}

/** JSON texts to stand where something else was expected; some are no JSON at all. */
const VALUES: readonly ((choose: Prng) => string)[] = [
  () => "null",
  () => "true",
  () => "[]",
  () => "{}",
  () => '""',
  () => '"__proto__"',
  () => '{"__proto__":{"count":1}}',
  () => '{"constructor":{"prototype":{"x":1}}}',
  () => '{"toJSON":1,"then":1,"length":-1}',
  () => "0",
  () => "-1",
  () => "-0",
  () => "1e308",
  () => "1e999",
  () => "-1e-999",
  () => "9007199254740993",
  () => "1".repeat(2_000),
  () => "0.1",
  () => "01",
  () => "NaN",
  () => "undefined",
  () => "'x'",
  () => '"\\ud800"',
  () => '"\\udfff\\ud800"',
  () => '"\\u0000"',
  () => '"a\\u0000b"',
  () => '"\u0000"',
  () => '"\\x41"',
  () => '"unfinished',
  () => '"\u202e\ufeff\u2028"',
  () => '"..%2f..%2fetc/passwd"',
  () => '"\'; DROP TABLE account; --"',
  () => '"${jndi:ldap://127.0.0.1/x}"',
  (choose) => `"${"A".repeat(choose.below(140_000))}"`,
  (choose) => `"${"\\u0041".repeat(choose.below(2_000))}"`,
  (choose) => "[".repeat(1 + choose.below(30_000)),
  (choose) => `${"[".repeat(5_000 + choose.below(20_000))}${"]".repeat(5_000)}`,
  (choose) => `${'{"a":'.repeat(1 + choose.below(8_000))}1`,
  (choose) => `[${"0,".repeat(choose.below(40_000))}0]`,
  (choose) => `{${Array.from({ length: choose.below(4_000) }, (_, i) => `"f${i}":0,`).join("")}"z":0}`,
  (choose) => `"${choose.bytes(32).toBase64({ alphabet: "base64url", omitPadding: true })}"`,
  (choose) => `"${choose.bytes(16).toHex()}"`,
  (choose) => `"${choose.bytes(16).toHex().toUpperCase()}"`,
];

const HERE = "@here@";

type Node = { [name: string]: unknown } | unknown[];

/** Every object or list in `value` with each name or index in it. */
function placesIn(value: unknown, found: [Node, string][] = []): [Node, string][] {
  if (typeof value !== "object" || value === null) return found;
  for (const [name, child] of Object.entries(value)) {
    found.push([value as Node, name]);
    placesIn(child, found);
  }
  return found;
}

/** Changes JSON with a sense for its structure: other types and sizes, fields missing, doubled, renamed or added. */
export function mutateJson(choose: Prng, json: string): Uint8Array {
  const value: unknown = JSON.parse(json);
  const places = placesIn(value);
  const nasty = () => choose.pick(VALUES)(choose);
  if (places.length === 0) return encoder.encode(choose.below(3) === 0 ? nasty() : `{"${choose.below(9)}":${nasty()}}`);
  const [node, name] = choose.pick(places);
  const fields = node as { [name: string]: unknown };
  const before = fields[name];
  const put = (text: string) => {
    fields[name] = HERE;
    return encoder.encode(JSON.stringify(value).replace(`"${HERE}"`, () => text));
  };
  switch (choose.below(9)) {
    case 0:
      if (Array.isArray(node)) node.splice(Number(name), 1);
      else delete node[name];
      return encoder.encode(JSON.stringify(value));
    case 1: {
      // the same name twice
      const text = JSON.stringify(before);
      return Array.isArray(node) ? put(`${text},${text}`) : put(`${text},${JSON.stringify(name)}:${nasty()}`);
    }
    case 2:
      return put(
        `${JSON.stringify(before)}${Array.isArray(node) ? "," : `,${choose.pick(['"__proto__"', '"x"', '""'])}:`}${nasty()}`,
      );
    case 3:
      return put(`${choose.pick([" ", "\t\n", "\u00a0", "/**/", "\ufeff"])}${JSON.stringify(before)}`);
    case 4: {
      const [other, place] = choose.pick(places);
      fields[name] = structuredClone((other as { [name: string]: unknown })[place]);
      return encoder.encode(JSON.stringify(value));
    }
    case 5:
      if (typeof before === "string") return put(JSON.stringify(twist(choose, before)));
      if (typeof before === "number")
        return put(String(choose.pick([before + 1, before - 1, before * 2 ** 40, -before])));
      return put(nasty());
    default:
      return put(nasty());
  }
}

/** A text of about the same form. */
function twist(choose: Prng, text: string): string {
  const at = choose.below(text.length + 1);
  const letter = choose.pick(["A", "_", "-", "=", "/", "+", "0", "g", "\u0000", "é", "\u{1f511}", " ", '"', "\\"]);
  return choose.pick([
    text.slice(0, at) + letter + text.slice(at + 1),
    text.slice(0, at) + letter + text.slice(at),
    text.slice(0, at),
    text + text,
    text.toUpperCase(),
    `${text}=`,
    "",
  ]);
}
