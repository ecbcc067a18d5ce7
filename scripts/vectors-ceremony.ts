import { rsaFromSeed } from "../src/crypto/rsaprime.ts";
import { ownValue } from "../src/protocol/ceremony/contribution.ts";
import { CEREMONY_FUNCTIONS, type OutputSpec } from "../src/protocol/ceremony/model.ts";
import { makeOutput } from "../src/protocol/ceremony/output.ts";
import { encodeTranscript } from "../src/wire/ceremony/transcript.ts";
import { type PureCeremony, type PureOptions, pureCeremony } from "../tests/support/pureceremony.ts";
import { seededRandom } from "./vectors-vault.ts";

/** Writes tests/vectors/ceremony.json (docs/protocol.md §10.5): `bun scripts/vectors-ceremony.ts`. */

/** A whole ceremony with every value that is secret in any other one. */
export interface CeremonyVector {
  readonly name: string;
  /** Lines of the transcript's file. */
  readonly transcript: readonly string[];
  readonly ceremonyId: string;
  readonly purpose: string;
  /** s0. */
  readonly seedHex: string;
  readonly participants: readonly {
    readonly index: number;
    readonly function: string;
    /** What the system drew, and what was mixed in. */
    readonly osHex: string;
    readonly mixedHex: readonly string[];
    /** r_i. */
    readonly openingHex: string;
    readonly commitmentHex: string;
    /** y_i. */
    readonly valueHex: string;
  }[];
  readonly t1Hex: string;
  readonly t2Hex: string;
  /** K. */
  readonly keyHex: string;
  readonly keyHashHex: string;
  /** The manifest's output first, then what the same K gives for others. */
  readonly outputs: readonly {
    readonly spec: OutputSpec;
    /** What the key store keeps; null for nothing. */
    readonly valueHex: string | null;
    readonly publicKeyHex: string | null;
    readonly descriptor: string | null;
    readonly keysHex: readonly string[];
    /** Of a wallet: scalars of the ceremony by participant. */
    readonly partsHex: readonly string[];
  }[];
}

const text = (words: string) => new TextEncoder().encode(words);
const names = { issuer: "Example", label: "office" };
const TOTP: OutputSpec = { kind: "totp", algorithm: "SHA1", digits: 6, period: 30, ...names };

const OTHERS: readonly OutputSpec[] = [
  { kind: "totp", algorithm: "SHA512", digits: 8, period: 60, ...names },
  { kind: "hotp", algorithm: "SHA256", digits: 6, ...names },
  { kind: "bytes", length: 48 },
  { kind: "hedge" },
  { kind: "secp256k1" },
  { kind: "p256" },
  { kind: "ed25519" },
  { kind: "rsa", bits: 2_048 },
  { kind: "bip39", words: 12 },
  { kind: "bip39", words: 24 },
];

async function vectorOf(name: string, w: PureCeremony, others: readonly OutputSpec[]): Promise<CeremonyVector> {
  const { ceremonyId, seed } = w;
  const file = encodeTranscript(await w.go("stored", [2, 3, 1, 4].slice(0, w.participants.length)));
  const { joins, t1 } = w.stateAt(0);
  const { t2, key, keyHash } = await w.combined();
  const participants: CeremonyVector["participants"][number][] = [];
  for (const { join } of joins) {
    const { os, mixed, opening } = w.participant(join.index);
    participants.push({
      index: join.index,
      function: join.function,
      osHex: os.toHex(),
      mixedHex: mixed.map((one) => one.toHex()),
      openingHex: opening.toHex(),
      commitmentHex: join.commitment.toHex(),
      valueHex: (await ownValue(join.function, opening, seed, ceremonyId, join.index)).toHex(),
    });
  }
  const outputs: CeremonyVector["outputs"][number][] = [];
  for (const spec of [w.draft.output, ...others]) {
    const { value, public: made, parts } = await makeOutput(spec, key, { ceremonyId, joins });
    outputs.push({
      spec,
      valueHex: value?.toHex() ?? null,
      publicKeyHex: made.publicKey?.toHex() ?? null,
      descriptor: made.descriptor,
      keysHex: made.keys.map(({ publicKey }) => publicKey.toHex()),
      partsHex: parts.map(({ secret }) => secret.toHex()),
    });
  }
  return {
    name,
    transcript: new TextDecoder().decode(file).trimEnd().split("\n"),
    ceremonyId,
    purpose: w.draft.purpose,
    seedHex: seed.toHex(),
    participants,
    t1Hex: t1?.toHex() ?? "",
    t2Hex: t2.toHex(),
    keyHex: key.toHex(),
    keyHashHex: keyHash.toHex(),
    outputs,
  };
}

/** All vectors, computed. */
async function ceremonyVectors(): Promise<readonly CeremonyVector[]> {
  const world = async (seed: string, options: Omit<PureOptions, "random" | "rsa">) => {
    const random = seededRandom(`keyhold ceremony vectors: ${seed}`);
    const { publicKey } = await rsaFromSeed(random(64), text(seed), 3_072);
    return pureCeremony({ random, rsa: publicKey, ...options });
  };
  const totp = await world("totp", {
    participants: 4,
    functions: CEREMONY_FUNCTIONS,
    mixed: [[], [text("correct horse battery staple")], [text("3 1 6 6 2 5"), text("a file's bytes")], [text("")]],
    accounts: [3],
    draft: { output: TOTP },
  });
  const wallet = await world("wallet", {
    participants: 3,
    draft: {
      name: "board-wallet",
      purpose: "wallet of the board",
      output: { kind: "multisig", threshold: 2, network: "mainnet" },
      policy: { collect: "nobody", quorum: 0 },
    },
  });
  return [await vectorOf("totp", totp, OTHERS), await vectorOf("wallet", wallet, [])];
}

/** The text of the vector file, laid out as the formatter has it. @throws Error when that does not run. */
export async function ceremonyVectorText(): Promise<string> {
  const root = new URL("..", import.meta.url).pathname;
  const child = Bun.spawn(["node_modules/.bin/biome", "format", "--stdin-file-path=tests/vectors/ceremony.json"], {
    cwd: root,
    stdin: new TextEncoder().encode(JSON.stringify(await ceremonyVectors(), null, 2)),
    stdout: "pipe",
    stderr: "pipe",
  });
  const [text, said, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  if (code !== 0) throw new Error(`the formatter ended with ${code}: ${said}`);
  return text;
}

if (import.meta.main) {
  await Bun.write(new URL("../tests/vectors/ceremony.json", import.meta.url), await ceremonyVectorText());
}
