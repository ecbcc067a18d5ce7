import { shapeGenerated } from "../../src/client/generated.ts";
import { generateRsa } from "../../src/crypto/rsa.ts";
import type { Asks } from "../../src/formats/foreign.ts";
import type { PlainItem } from "../../src/formats/index.ts";
import { generateValue } from "../../src/protocol/keygen.ts";
import { isGenerated, type SecretType, VISIBLE_TYPES } from "../../src/protocol/secrettype.ts";

const rsa = await generateRsa(2_048);

/** One secret of every type, the keys valid ones. */
export const SAMPLES: readonly PlainItem[] = await Promise.all(
  VISIBLE_TYPES.map(async (type, i) => ({
    name: `sample/${type}`,
    type,
    value: await sampleValue(type, i),
    tags: i % 2 === 0 ? [] : ["one", "zwei ü"],
    createdAt: i % 3 === 0 ? null : "2026-02-28T23:59:59.999Z",
  })),
);

async function sampleValue(type: SecretType, i: number): Promise<Uint8Array> {
  if (type === "rsa") return rsa.value;
  if (type === "file") return Uint8Array.of(0, 255, 1, 254);
  if (!isGenerated(type)) return new TextEncoder().encode("\ufeffa note, \u0000 and ü\n");
  const made = generateValue(type, new Uint8Array(32).fill(i + 1), null);
  return (await shapeGenerated(type, `sample/${type}`, made)).value;
}

/** The sample of a type. */
export function sample(type: SecretType): PlainItem {
  const item = SAMPLES.find((candidate) => candidate.type === type);
  if (!item) throw new Error(`no sample of ${type}`);
  return item;
}

export const BAD_INPUT = { name: "Fault", code: "bad_input" };

export const ascii = (text: string): Uint8Array => new TextEncoder().encode(text);

/** Nobody to ask. */
export const NO_ASKS: Asks = {
  password: () => Promise.reject(new Error("asked for a password")),
  identities: () => Promise.reject(new Error("asked for keys")),
  progress: () => undefined,
};

/** {@link NO_ASKS} with a password, counted in `asked`. */
export function asksFor(password: string): Asks & { asked: number } {
  const asks = {
    ...NO_ASKS,
    asked: 0,
    password: () => {
      asks.asked++;
      return Promise.resolve(ascii(password));
    },
  };
  return asks;
}

/** {@link NO_ASKS} with the contents of identity files. */
export function asksWith(...files: readonly (string | Uint8Array)[]): Asks {
  const contents = () => files.map((file) => (typeof file === "string" ? ascii(file) : file.slice()));
  return { ...NO_ASKS, identities: () => Promise.resolve(contents()) };
}
