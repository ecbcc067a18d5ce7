import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { applyFilters, type FILTERS, parseTemplate, TEMPLATE_LIMITS } from "../../src/commands/template.ts";
import { Fault } from "../../src/errors.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const parsed = (text: string, other: "refuse" | "keep" = "refuse") =>
  parseTemplate(bytes(text), other)
    .map((part) => (part instanceof Uint8Array ? Buffer.from(part).toString("latin1") : part))
    .filter((part) => part !== "");

function refusal(template: string | Uint8Array, other: "refuse" | "keep" = "refuse"): Fault {
  try {
    parseTemplate(typeof template === "string" ? bytes(template) : template, other);
  } catch (error) {
    if (error instanceof Fault) return error;
    throw error;
  }
  throw new Error("it was taken");
}

describe("a template", () => {
  test("has references with fields and filters, and two braces where they are meant", () => {
    expect(
      parsed('a: {{ kh://db/prod }}\r\nb: {{kh://x?version=2&profile=p#user|json | base64}} {{ "{{" }} x }}'),
    ).toEqual([
      "a: ",
      { reference: { name: "db/prod", version: null, profile: null, field: null }, filters: [], line: 1 },
      "\r\nb: ",
      { reference: { name: "x", version: 2, profile: "p", field: "user" }, filters: ["json", "base64"], line: 2 },
      " ",
      "{{",
      " x }}",
    ]);
    expect(parsed("")).toEqual([]);
    expect(parsed("{ { kh://x } } } {")).toEqual(["{ { kh://x } } } {"]);
    expect(parsed("{{ kh://a%7Cb%7D%7D }}")).toMatchObject([{ reference: { name: "a|b}}" } }]);
  });

  test("anything else in braces is refused with its line and without its content", () => {
    const cases = [
      ["{{}}", 1],
      ["\n{{ }}", 2],
      ["\n\n{{ hunter22 }}", 3],
      ["{{ kh:/x }}", 1],
      ["{{ KH://x }}", 1],
      ["x {{ kh://x", 1],
      ["{{ kh://x }\n}", 1],
      ["\n{{ kh://\n}}", 2],
      ["{{", 1],
      ["{{{ kh://x }}}", 1],
    ] as const;
    for (const [template, line] of cases) {
      const fault = refusal(template);
      expect([template, fault.code, fault.message]).toEqual([
        template,
        "bad_input",
        `line ${line} of the template has no reference after {{`,
      ]);
      expect(JSON.stringify([fault.why, fault.hint])).not.toContain("hunter22");
    }
    expect(refusal("\n{{ kh:// }}").message).toContain("line 2 of the template");
    expect(refusal("{{ kh://x?a=b }}").message).toContain("line 1 of the template");
    expect(refusal("\n{{ kh://x | upper }}").message).toBe("line 2 of the template has an unknown filter");
  });

  test("what belongs to others is kept on request, references are not", () => {
    const text = 'a {{ .Values.x }} {{ "{{" }} {{ b\n}} {{ kh://x }} {{';
    expect(parsed(text, "keep")).toMatchObject([
      'a {{ .Values.x }} {{ "{{" }} {{ b\n}} ',
      { reference: { name: "x" }, line: 2 },
      " {{",
    ]);
    expect(refusal("{{ kh://x", "keep").code).toBe("bad_input");
  });

  test("has limits", () => {
    expect(refusal(new Uint8Array(TEMPLATE_LIMITS.bytes + 1)).code).toBe("too_large");
    expect(refusal("{{ kh://x }}".repeat(TEMPLATE_LIMITS.placeholders + 1)).code).toBe("too_large");
    expect(refusal(`{{ kh://${"x".repeat(TEMPLATE_LIMITS.placeholderBytes)} }}`).code).toBe("bad_input");
    expect(parseTemplate(new Uint8Array(TEMPLATE_LIMITS.bytes), "refuse")).toHaveLength(1);
  });

  test("gives back every byte that is no placeholder", () => {
    fc.assert(
      fc.property(
        fc.array(fc.oneof(fc.uint8Array({ maxLength: 20 }), fc.constant(null)), { maxLength: 12 }),
        (plan) => {
          const literal = plan.map((part) => part?.map((byte) => (byte === 0x7b ? 0x7d : byte)) ?? null);
          const template = Buffer.concat(literal.map((part) => part ?? bytes("{{kh://n}}")));
          const parts = parseTemplate(new Uint8Array(template), "refuse");
          const again = parts.map((part) => (part instanceof Uint8Array ? part : bytes("{{kh://n}}")));
          expect(Buffer.concat(again).equals(template)).toBe(true);
          expect(parts.filter((part) => !(part instanceof Uint8Array))).toHaveLength(
            plan.filter((one) => one === null).length,
          );
        },
      ),
    );
  });
});

describe("filters", () => {
  const all = (text: string, ...filters: (typeof FILTERS)[number][]) =>
    new TextDecoder().decode(applyFilters(bytes(text), text, filters));

  test("write a value as its place wants it", () => {
    const text = "a\"b\\c\nd ä'e&f/";
    expect(all(text)).toBe(text);
    expect(JSON.parse(all(text, "json"))).toBe(text);
    expect(Buffer.from(all(text, "base64"), "base64").toString()).toBe(text);
    expect([all("??>", "base64"), all("??>", "base64url"), all("?", "base64url")]).toEqual(["Pz8+", "Pz8-", "Pw"]);
    expect(all(text, "hex")).toBe(Buffer.from(text).toString("hex"));
    expect(decodeURIComponent(all(text, "url"))).toBe(text);
    expect(all("a b'!*()~-._", "url")).toBe("a%20b%27%21%2A%28%29~-._");
    expect(all("x", "base64", "json")).toBe('"eA=="');
    expect(Bun.spawnSync(["sh", "-c", `printf %s ${all(text, "shell")}`]).stdout.toString()).toBe(text);
    expect(() => all("a\0b", "shell")).toThrow("zero byte");
  });

  test("take the bytes of a value that is no text, and else its encoding", () => {
    const raw = Uint8Array.of(0, 255);
    const out = (...filters: (typeof FILTERS)[number][]) => new TextDecoder().decode(applyFilters(raw, "AP8", filters));
    expect([out(), out("json"), out("base64"), out("hex"), out("url")]).toEqual([
      "AP8",
      '"AP8"',
      "AP8=",
      "00ff",
      "%00%FF",
    ]);
  });
});
