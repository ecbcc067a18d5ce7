import { Fault } from "../errors.ts";
import { OUTPUT_KINDS, type OutputSpec } from "../protocol/ceremony/model.ts";
import { OTP_ALGORITHMS } from "../protocol/otpalgorithm.ts";
import type { Values } from "../ui/args.ts";
import { flagName } from "../ui/args.ts";

/** Networks of a wallet. */
export const NETWORKS = ["mainnet", "testnet", "signet", "regtest"] as const;

/** Flags that say what a one-time password is like. */
export const OTP_SPEC_ARGS = {
  algorithm: { type: "enum", options: OTP_ALGORITHMS, description: "of totp and hotp: hash (default SHA1)" },
  digits: { type: "integer", min: 6, max: 10, description: "of totp and hotp: digits of a code (default 6)" },
  period: { type: "integer", min: 1, max: 86_400, description: "of totp: seconds a code is good for (default 30)" },
  issuer: { type: "string", hint: "TEXT", description: "of totp and hotp: who asks for the codes" },
  label: { type: "string", hint: "TEXT", description: "of totp and hotp: for what they are (default: the name)" },
} as const;

/** Flags that say what becomes of a ceremony's key. */
export const OUTPUT_ARGS = {
  output: { type: "enum", options: OUTPUT_KINDS, description: "what becomes of the key" },
  bytes: { type: "integer", min: 1, max: 1_024, description: "of bytes: how many (default 32)" },
  ...OTP_SPEC_ARGS,
  bits: { type: "integer", min: 2_048, max: 4_096, description: "of rsa: 2048, 3072 or 4096 (default 3072)" },
  words: { type: "integer", min: 12, max: 24, description: "of bip39: 12 or 24 (default 24)" },
  threshold: {
    type: "integer",
    min: 1,
    max: 15,
    description: "of multisig: how many spend together (default: more than half)",
  },
  network: { type: "enum", options: NETWORKS, description: "of multisig: for which network (default mainnet)" },
} as const;

type Said = Omit<Values<typeof OUTPUT_ARGS>, "output">;

const OTP_FLAGS = ["algorithm", "digits", "issuer", "label"] as const;

/** Which flags go with which kind. */
const FITS: Readonly<Record<OutputSpec["kind"], readonly (keyof Said)[]>> = {
  totp: [...OTP_FLAGS, "period"],
  hotp: OTP_FLAGS,
  bytes: ["bytes"],
  hedge: [],
  secp256k1: [],
  p256: [],
  ed25519: [],
  rsa: ["bits"],
  bip39: ["words"],
  multisig: ["threshold", "network"],
};

/**
 * What the flags say becomes of a key.
 *
 * @param name What a one-time password is labelled, unless `--label` says else.
 * @param seats Participants, of whom more than half spend from a wallet unless `--threshold` says else.
 * @throws Fault usage for a flag of another kind, or a value that the kind does not have
 */
export function outputOf(kind: OutputSpec["kind"], said: Said, name: string, seats: number): OutputSpec {
  const fits = FITS[kind];
  for (const key of Object.keys(FLAGS) as (keyof Said)[]) {
    if (said[key] === null || fits.includes(key)) continue;
    throw new Fault("usage", `--${flagName(key)} does not go with --output ${kind}`);
  }
  const otp = () => ({
    algorithm: said.algorithm ?? ("SHA1" as const),
    digits: said.digits ?? 6,
    issuer: said.issuer ?? "",
    label: said.label ?? name,
  });
  switch (kind) {
    case "totp":
      return { kind, ...otp(), period: said.period ?? 30 };
    case "hotp":
      return { kind, ...otp() };
    case "bytes":
      return { kind, length: said.bytes ?? 32 };
    case "hedge":
    case "secp256k1":
    case "p256":
    case "ed25519":
      return { kind };
    case "rsa":
      return { kind, bits: oneOfNumbers("--bits", said.bits ?? 3_072, [2_048, 3_072, 4_096]) };
    case "bip39":
      return { kind, words: oneOfNumbers("--words", said.words ?? 24, [12, 24]) };
    case "multisig":
      return { kind, threshold: said.threshold ?? Math.floor(seats / 2) + 1, network: said.network ?? "mainnet" };
  }
}

const { output: _, ...FLAGS } = OUTPUT_ARGS;

/** True where no flag says how the output is to be. */
export const saysNothing = (said: Said): boolean =>
  (Object.keys(FLAGS) as (keyof Said)[]).every((key) => said[key] === null);

function oneOfNumbers(flag: string, value: number, of: readonly number[]): number {
  if (of.includes(value)) return value;
  throw new Fault("usage", `${flag} takes one of ${of.join(", ")}, not "${value}"`);
}
