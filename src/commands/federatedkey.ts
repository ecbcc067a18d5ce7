import type { KeyholdClient } from "../client/api.ts";
import type { FederatedKeyInfo, GenerateFederated } from "../client/federationapi.ts";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { CONTROLS, CUSTODIES, FEDERATED_TYPES } from "../protocol/federation/kinds.ts";
import { type Context, defineCommand } from "../ui/command.ts";
import { VALUE_ARGS } from "../ui/flags.ts";
import { OUT_FILE_ARGS, outFile, putFile } from "../ui/outfile.ts";
import { type Result, result } from "../ui/output.ts";
import { readValue } from "../ui/password.ts";
import { withClient } from "../ui/session.ts";
import { plain } from "../ui/text.ts";
import { federatedKeyOf, federatedResult } from "./federated.ts";
import { chosen } from "./federation.ts";
import { keyOfWorkspace, keyringKeyLines } from "./keyringshown.ts";

const KEY = {
  name: { type: "positional", description: "name or id of a key of a federation", ask: "Name of the key" },
} as const;

const PURPOSE = {
  federation: { type: "string", hint: "NAME", description: "which federation (default: the only one)" },
  type: { type: "enum", options: FEDERATED_TYPES, default: "bytes", description: "what kind of key" },
  custody: {
    type: "enum",
    options: CUSTODIES,
    default: "self",
    description: "self: useless without a part that only you hold; delegated: the servers hold all of it",
  },
  control: {
    type: "enum",
    options: CONTROLS,
    default: "unilateral",
    description: "unilateral: you alone decide; shared: a policy approves creation and each use",
  },
  policy: {
    type: "string",
    hint: "NAME",
    description: "name or id of the policy that approves it, with --control shared",
  },
} as const;

interface PurposeArgs {
  readonly name: string;
  readonly federation: string | null;
  readonly type: GenerateFederated["type"];
  readonly custody: GenerateFederated["custody"];
  readonly control: GenerateFederated["control"];
  readonly policy: string | null;
}

/** True where a secret of this account has the name: `key sign` could not tell the two apart. */
export async function isSecret(client: KeyholdClient, name: string): Promise<boolean> {
  const { items } = await client.list({ prefix: name, search: null, tag: null, fresh: false });
  return items.some((one) => one.name === name);
}

async function purposeOf(client: KeyholdClient, args: PurposeArgs, bytes: number): Promise<GenerateFederated> {
  if (args.control === "shared" && args.policy === null) {
    throw new Fault("usage", "a key under shared control needs --policy NAME", { hint: "keyhold policy show" });
  }
  if (args.control === "unilateral" && args.policy !== null) {
    throw new Fault("usage", "--policy goes with --control shared");
  }
  const { name } = chosen(await client.federations(), args.federation);
  if (await isSecret(client, args.name)) {
    throw new Fault("exists", `there is a secret "${args.name}" already`, { hint: "choose another name" });
  }
  const { type, custody, control, policy } = args;
  return { name: args.name, federation: name, type, bytes, custody, control, policy };
}

export const keyGenerate = defineCommand({
  args: {
    ...KEY,
    ...PURPOSE,
    bytes: { type: "integer", min: 1, max: 65_536, description: "length, with --type bytes (default: 32)" },
  },
  data: "{requestId, status, keyId?, publicKeyHex?, absent}; exit 9 while it waits for approval",
  details: `The servers of a federation make the key together: none of them ever holds it, nor do fewer than its threshold. A
server that is away is left out and can be given a share later, by \`key repair\`. A key pair of this device alone is
made by \`keyhold generate\`.`,
  examples: [
    ["keyhold key generate treasury --type schnorr --custody delegated", "a BIP-340 key that the servers sign with"],
    ["keyhold key generate seed --type bytes --bytes 32", "bytes that only you can put together"],
    ["keyhold key generate payroll --type ed25519 --control shared --policy board", "each use needs its approvals"],
  ],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      if (args.bytes !== null && args.type !== "bytes") throw new Fault("usage", "--bytes goes with --type bytes");
      const input = await purposeOf(client, args, args.bytes ?? 32);
      const made = await ctx.term.step("The servers make the key", client.generateFederated(input));
      return federatedResult(made, ({ keyId, publicKeyHex }) =>
        [`${plain(args.name)}  ${keyId}`, ...(publicKeyHex === null ? [] : [`public key ${publicKeyHex}`])].join("\n"),
      );
    }),
});

export const keyImport = defineCommand({
  args: { ...KEY, ...PURPOSE, ...VALUE_ARGS },
  data: "{requestId, status, keyId?, publicKeyHex?, absent}",
  details: `Shares an existing key out among the servers of a federation. It stays marked as imported: whoever had it may have it
still. A scalar is 32 bytes, big-endian; of type ed25519 the 32-byte seed, of which only the scalar is kept.`,
  examples: [["keyhold key import old --type secp256k1 --in-file old.key", "32 bytes of a private key"]],
  run: async (args, ctx) => {
    const value = await readValue(ctx, args.inFile);
    try {
      return await withClient(ctx, async (client) => {
        const input = await purposeOf(client, args, value.length);
        const made = await ctx.term.step("Sharing it out", client.importFederated({ ...input, value }));
        return federatedResult(made, ({ keyId }) => `${plain(args.name)}  ${keyId}`);
      });
    } finally {
      wipe(value);
    }
  },
});

/** How a key is held that a ceremony's server has seen: what servers and owner have of it is not all there is. */
const custodialText = ({ custody, released }: FederatedKeyInfo): string =>
  [
    "custodial (a ceremony's server has seen it)",
    custody === "self" ? "a part is yours" : "delegated",
    ...(released ? ["released"] : []),
  ].join("; ");

/** A key for people. */
function describe(key: FederatedKeyInfo): string {
  const rows: readonly (readonly [string, string])[] = [
    ["key id", key.keyId],
    ["federation", key.federation],
    ["type", key.type],
    ["custody", key.shown === "custodial" ? custodialText(key) : key.shown],
    ["control", key.control],
    ["origin", key.origin],
    ["public key", key.publicKeyHex],
    ["shares", `any ${key.threshold} of servers ${key.holders.join(", ")}, generation ${key.generation}`],
    ...(key.frozen ? [["state", "frozen: two contradictory decisions were seen"] as const] : []),
  ];
  const lines = rows.map(([label, value]) => `  ${label.padEnd(10)}  ${plain(value)}`);
  return [plain(key.name ?? "(no name)"), ...lines].join("\n");
}

export const keyShow = defineCommand({
  args: KEY,
  data: "{name, federation, keyId, type, custody, control, shown, origin, released, publicKeyHex, threshold, holders, generation, frozen}",
  examples: [["keyhold key show treasury", "custody, holders and public key"]],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const ofWorkspace = (await federatedKeyOf(client, args.name)) ? null : await keyOfWorkspace(client, args.name);
      if (ofWorkspace) return result(ofWorkspace, () => keyringKeyLines(ofWorkspace));
      const key = await client.federatedKey({ key: args.name });
      return result(key, () => describe(key));
    }),
});

/** The text of a value that was put together. */
const textOf = (value: Uint8Array, encoding: "hex" | "base64" | "base64url"): string =>
  encoding === "hex" ? value.toHex() : value.toBase64({ alphabet: encoding, omitPadding: encoding === "base64url" });

const RELEASE = {
  ...KEY,
  ...OUT_FILE_ARGS,
  reveal: { type: "boolean", description: "print the value" },
  encoding: {
    type: "enum",
    options: ["hex", "base64", "base64url"],
    default: "hex",
    description: "of the value that --reveal prints",
  },
} as const;

interface ReleaseArgs {
  readonly name: string;
  readonly reveal: boolean;
  readonly encoding: "hex" | "base64" | "base64url";
  readonly out: string | null;
  readonly mode: string | null;
  readonly force: boolean;
}

/** Puts a key together, and gives it to where the caller said. */
async function release(ctx: Context, args: ReleaseArgs, purpose: "retrieve" | "export"): Promise<Result> {
  const file = outFile(args);
  if (!args.reveal && args.out === null) {
    throw new Fault("usage", "say where the value goes", { hint: "--reveal or --out FILE" });
  }
  return withClient(ctx, async (client) => {
    const { value, ...made } = await client.releaseFederated({ key: args.name, purpose });
    try {
      if (value !== null && file !== null) putFile(file, value);
      if (value !== null && args.out === "-") ctx.out.bytes(value);
      const text = value !== null && args.reveal ? textOf(value, args.encoding) : null;
      const given = federatedResult(
        made,
        () => text ?? "",
        "this command again; to wait for it: keyhold request watch",
      );
      return { ...given, bare: text !== null, data: text === null ? made : { ...made, value: text } };
    } finally {
      wipe(value ?? undefined);
    }
  });
}

export const keyRetrieve = defineCommand({
  args: RELEASE,
  data: "{requestId, status, keyId, value?}; value with --reveal",
  details: `Of a key of type bytes: enough servers release their shares, sealed to this command, which checks each and puts them
together. From then on the key is marked: its control is unilateral in fact. Where that waits for approval (exit 9), the
same command goes on with the same request.`,
  examples: [["keyhold key retrieve seed --out seed.bin", "the bytes, into a new file"]],
  run: async (args, ctx) => release(ctx, args, "retrieve"),
});

export const keyExport = defineCommand({
  args: RELEASE,
  data: "{requestId, status, keyId, value?}; value with --reveal",
  details: `The private scalar, 32 bytes: big-endian, of ed25519 and ristretto255 little-endian (RFC 8032). Needs the permission to release, which no policy gives unasked, and marks the
key for good: from then on there is one place where all of it has been.`,
  examples: [["keyhold key export treasury --out treasury.key", "take a key out of its federation"]],
  run: async (args, ctx) => {
    await ctx.term.confirm(`Put the whole of "${args.name}" together here? The mark stays for good.`);
    return release(ctx, args, "export");
  },
});

const held = (made: { readonly keyId: string | null }, name: string) => `${plain(name)}  ${made.keyId ?? ""}`.trim();

export const keyRepair = defineCommand({
  args: {
    ...KEY,
    server: { type: "list", hint: "INDEX", description: "whom to give a share (default: who lacks one)" },
  },
  data: "{requestId, status, keyId, absent}",
  details: "Gives a server that was away, or has lost everything, a share of its own; the public key stays.",
  examples: [["keyhold key repair treasury", "after `federation check` found a server without its share"]],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const holders = args.server.length === 0 ? null : indices(args.server);
      const work = client.reshareFederated({ key: args.name, mode: "repair", threshold: null, holders });
      const made = await ctx.term.step("Resharing", work);
      return federatedResult(made, () => held(made, args.name));
    }),
});

export const keyRefresh = defineCommand({
  args: KEY,
  data: "{requestId, status, keyId, absent}",
  details:
    "New shares for the same servers: what was stolen of the old ones is worth nothing together with the new ones.",
  examples: [["keyhold key refresh treasury", "after a server's disk went missing"]],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const work = client.reshareFederated({ key: args.name, mode: "refresh", threshold: null, holders: null });
      const made = await ctx.term.step("Resharing", work);
      return federatedResult(made, () => held(made, args.name));
    }),
});

/** Indices of servers. @throws Fault usage */
function indices(texts: readonly string[]): number[] {
  const all = texts.flatMap((text) => text.split(","));
  if (!all.every((text) => /^[1-9][0-9]{0,2}$/.test(text))) {
    throw new Fault("usage", "servers are named by their index", { hint: "keyhold federation members" });
  }
  return [...new Set(all.map(Number))].sort((a, b) => a - b);
}

export const keyReshare = defineCommand({
  args: {
    ...KEY,
    threshold: { type: "integer", min: 2, max: 32, description: "shares that make the key from now on" },
    holder: { type: "list", hint: "INDEX", description: "servers that hold a share from now on (default: all)" },
  },
  data: "{requestId, status, keyId, absent}",
  details: "Changes who holds the key, and how many of them it takes; the public key stays.",
  examples: [["keyhold key reshare treasury --threshold 3 --holder 1,2,3,4,5", "from 2 of 3 to 3 of 5"]],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const holders = args.holder.length === 0 ? null : indices(args.holder);
      const work = client.reshareFederated({ key: args.name, mode: "reshare", threshold: args.threshold, holders });
      const made = await ctx.term.step("Resharing", work);
      return federatedResult(made, () => held(made, args.name));
    }),
});
