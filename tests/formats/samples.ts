import { generateRsa } from "../../src/crypto/rsa.ts";
import type { PlainItem } from "../../src/formats/index.ts";
import { generateValue, type SeededType } from "../../src/protocol/keygen.ts";
import { GENERATED_TYPES, type SecretType } from "../../src/protocol/secrettype.ts";

const rsa = await generateRsa(2_048);

/** One secret of every type, the keys valid ones. */
export const SAMPLES: readonly PlainItem[] = [...GENERATED_TYPES, "note" as const].map((type, i) => ({
  name: `sample/${type}`,
  type,
  value: sampleValue(type, i),
  tags: i % 2 === 0 ? [] : ["one", "zwei ü"],
  createdAt: i % 3 === 0 ? null : "2026-02-28T23:59:59.999Z",
}));

function sampleValue(type: SecretType, i: number): Uint8Array {
  if (type === "note") return new TextEncoder().encode("\ufeffa note, \u0000 and ü\n");
  if (type === "rsa") return rsa.value;
  return generateValue(type satisfies SeededType, new Uint8Array(32).fill(i + 1), null).value;
}

/** The sample of a type. */
export function sample(type: SecretType): PlainItem {
  const item = SAMPLES.find((candidate) => candidate.type === type);
  if (!item) throw new Error(`no sample of ${type}`);
  return item;
}

export const BAD_INPUT = { name: "Fault", code: "bad_input" };

export const ascii = (text: string): Uint8Array => new TextEncoder().encode(text);
