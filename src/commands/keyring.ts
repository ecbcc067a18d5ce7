import type { KeyholdClient } from "../client/api.ts";
import type { KeyringInfo, PartyInfo } from "../client/keyringapi.ts";
import { Fault } from "../errors.ts";
import { defineCommand } from "../ui/command.ts";
import { listing, type Result, result } from "../ui/output.ts";
import { withClient } from "../ui/session.ts";
import { plain } from "../ui/text.ts";
import { namedKey } from "./keyringshown.ts";

const KEYRING = {
  type: "positional",
  hint: "KEYRING",
  description: "its name, its id, or the start of the id",
  ask: "Keyring (keyhold keyring list)",
} as const;
const OPTIONAL = { type: "positional", hint: "KEYRING", description: KEYRING.description, required: false } as const;
const PARTY = { type: "positional", hint: "NAME", description: "name of a party", ask: "Party" } as const;
const DATA = "{keyringId, name, federation, words, threshold, fees, active, own, parties, evidence}";
/** Credits that a fee has at most. */
const FEE_MAX = 1_000_000_000;

/** A party as `NAME@INDEX=KEY`. @throws Fault usage */
function partyOf(text: string): { readonly name: string; readonly index: number; readonly keyHex: string } {
  const [, name, index, keyHex] = /^([a-z0-9][a-z0-9._-]*)@(\d{1,3})=([0-9a-fA-F]{64})$/.exec(text) ?? [];
  if (name === undefined || index === undefined || keyHex === undefined) {
    throw new Fault("usage", `a party is given as NAME@INDEX=KEY, not "${text}"`, {
      hint: "its operator sees the key by: keyhold connector status; INDEX is its server in the federation",
    });
  }
  return { ...namedKey(`${name}=${keyHex}`, "a party", ""), index: Number(index) };
}

function describe(one: KeyringInfo): string {
  const wide = Math.max(0, ...one.parties.map(({ name }) => plain(name).length));
  const parties = one.parties.map(
    (p) => `  ${p.index}  ${plain(p.name).padEnd(wide)}  ${p.keyHex.slice(0, 16)}  ${plain(p.url)}  ${plain(p.state)}`,
  );
  const evidence = one.evidence.map((e) => `  ✘ ${plain(e.party)} said two things about one request, ${e.at}`);
  return [
    `${plain(one.name)}: any ${one.threshold} of ${one.parties.length} parties${one.active ? "" : ", not active"}`,
    `  id          ${one.keyringId}`,
    `  federation  ${plain(one.federation)}`,
    `  words       ${one.words.join(" ")}   (compare them with its operators)`,
    `  fees        ${one.fees.key} credits a key, ${one.fees.signature} a signature`,
    "Parties",
    ...parties,
    ...(evidence.length === 0 ? [] : ["Evidence", ...evidence]),
  ].join("\n");
}

const shown = (info: KeyringInfo): Result => result(info, () => describe(info));

/** The keyring that was named, or the only active one. @throws Fault not_found, ambiguous */
export async function theKeyring(client: KeyholdClient, named: string | null): Promise<string> {
  if (named !== null) return named;
  const all = (await client.keyrings()).filter(({ active }) => active);
  const [first, second] = all;
  if (first && !second) return first.keyringId;
  if (!first) throw new Fault("not_found", "this registry has no active keyring", { hint: "keyhold keyring create" });
  throw new Fault("ambiguous", "this registry has more than one keyring", {
    hint: `name one with --keyring: ${all.map(({ name }) => plain(name)).join(", ")}`,
  });
}

export const keyringCreate = defineCommand({
  args: {
    name: { type: "string", hint: "NAME", ask: "Name of the keyring", description: "name of the keyring" },
    federation: {
      type: "string",
      hint: "NAME",
      ask: "Federation that makes its keys (keyhold federation show)",
      description: "a federation that this profile has joined",
    },
    party: { type: "list", hint: "NAME@INDEX=KEY", description: "a connector beside one of its servers (repeat)" },
    threshold: { type: "integer", min: 1, max: 32, description: "parties that must agree (default: the federation's)" },
    keyFee: { type: "integer", min: 0, max: FEE_MAX, default: 0, description: "credits for a key" },
    signatureFee: { type: "integer", min: 0, max: FEE_MAX, default: 0, description: "credits for each signature" },
  },
  data: DATA,
  details:
    "Whoever makes a keyring is its first admin. Open requests keep the parties, threshold and fee of their creation.",
  examples: [
    [
      "keyhold keyring create --name vaults --federation custody --key-fee 10 --signature-fee 1 --party north@1=8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394 --party south@2=ca93ac1705187071d67b83c7ff0efe8108e8ec4530575d7726879333dbdabe7c --party west@3=6e7a1cdd29b0b78fd13af4c5598feff4ef2a97166e3ca6f2e4fbfccd80505bf1",
      "three parties, of which as many must agree as the federation needs",
    ],
  ],
  run: async (args, ctx) => {
    const parties = args.party.map(partyOf);
    if (parties.length === 0) {
      throw new Fault("usage", "a keyring has parties", {
        hint: "--party NAME@INDEX=KEY for each connector, as `keyhold connector init` printed it",
      });
    }
    return withClient(ctx, async (client) => {
      const fees = { key: args.keyFee, signature: args.signatureFee };
      const { threshold } = args;
      const made = await client.createKeyring({
        name: args.name ?? "",
        federation: args.federation ?? "",
        threshold,
        fees,
        parties,
      });
      return shown(made);
    });
  },
});

export const keyringList = defineCommand({
  list: true,
  args: {},
  data: `{items:[${DATA}], next}`,
  examples: [["keyhold keyring list", "the keyrings of the registry, with their fees"]],
  run: async (_args, ctx) =>
    withClient(ctx, async (client) => {
      const items = await client.keyrings();
      const cells = items.map((one) => [
        one.name,
        one.keyringId.slice(0, 16),
        `${one.threshold} of ${one.parties.length}`,
        String(one.fees.key),
        String(one.fees.signature),
        one.active ? "yes" : "no",
        one.federation,
      ]);
      const heads = ["NAME", "ID", "PARTIES", "KEY FEE", "SIGNATURE FEE", "ACTIVE", "FEDERATION"];
      return listing({ items, next: null }, { heads, cells });
    }),
});

export const keyringShow = defineCommand({
  args: { keyring: OPTIONAL },
  data: DATA,
  examples: [["keyhold keyring show vaults", "parties, threshold, fees, and evidence against a party"]],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => shown(await client.keyring({ keyring: await theKeyring(client, args.keyring) }))),
});

/** A party that has not been heard of for so long, in milliseconds, is called silent. */
const SILENT_MS = 60_000;

/** True for a party that does its work: its connector says `ok`, or in words what hinders it. */
export const isWell = ({ state, enrolled, deadLetters }: Pick<PartyInfo, "state" | "enrolled" | "deadLetters">) =>
  state === "ok" && enrolled && deadLetters === 0;

export const keyringStatus = defineCommand({
  list: true,
  args: { keyring: OPTIONAL },
  data: "{items:[{name, index, url, state, quarantined, enrolled, lastSeenAt, lastResponseAt, backlog, deadLetters, version}], next}",
  details: "Exit 10 when a party is silent, quarantined, cannot work or has dead letters.",
  examples: [["keyhold keyring status vaults", "health, backlog and last response of each party"]],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const { parties } = await client.keyring({ keyring: await theKeyring(client, args.keyring) });
      const silent = (at: string | null) => at === null || Date.now() - Date.parse(at) > SILENT_MS;
      const items = parties.map((one) => ({
        ...one,
        state: one.quarantined ? "quarantined" : silent(one.lastSeenAt) ? "silent" : one.state,
      }));
      const cells = items.map((one) => [
        one.name,
        one.state,
        String(one.backlog),
        String(one.deadLetters),
        one.lastSeenAt ?? "never",
        one.lastResponseAt ?? "never",
        one.version,
      ]);
      const heads = ["PARTY", "STATE", "BACKLOG", "DEAD LETTERS", "LAST SEEN", "LAST RESPONSE", "VERSION"];
      const well = items.every(isWell);
      return listing({ items, next: null }, { heads, cells }, { exit: well ? 0 : 10 });
    }),
});

export const partyAdd = defineCommand({
  args: {
    keyring: KEYRING,
    party: {
      type: "positional",
      hint: "NAME@INDEX=KEY",
      description: "a connector beside one of its servers",
      ask: "New party (NAME@INDEX=KEY, as `keyhold connector init` shows it)",
    },
  },
  data: DATA,
  examples: [
    [
      "keyhold keyring party add vaults east@4=8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394",
      "requests from now on know it",
    ],
  ],
  run: async (args, ctx) => {
    const party = partyOf(args.party);
    return withClient(ctx, async (client) =>
      shown(await client.changeKeyring({ keyring: args.keyring, change: { kind: "partyAdded", ...party } })),
    );
  },
});

export const partyRemove = defineCommand({
  args: { keyring: KEYRING, party: PARTY },
  data: DATA,
  examples: [["keyhold keyring party remove vaults east", "open requests keep it until they end"]],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      await ctx.term.confirm(`Remove the party ${plain(args.party)} from ${plain(args.keyring)}?`);
      const change = { kind: "partyRemoved", name: args.party } as const;
      return shown(await client.changeKeyring({ keyring: args.keyring, change }));
    }),
});

export const partyClear = defineCommand({
  args: { keyring: KEYRING, party: PARTY },
  data: DATA,
  details: "The evidence stays where it is: `keyhold keyring show --json` has it whole, for anyone to verify.",
  examples: [["keyhold keyring party clear vaults east", "after its operator has explained the evidence"]],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      await ctx.term.confirm(`Let ${plain(args.party)} take part in new requests again?`);
      const change = { kind: "partyCleared", name: args.party } as const;
      return shown(await client.changeKeyring({ keyring: args.keyring, change }));
    }),
});

export const keyringFees = defineCommand({
  args: {
    keyring: KEYRING,
    key: { type: "integer", min: 0, max: FEE_MAX, description: "credits for a key" },
    signature: { type: "integer", min: 0, max: FEE_MAX, description: "credits for each signature" },
  },
  data: DATA,
  details: "Without flags it shows them: what a request would cost now.",
  examples: [
    ["keyhold keyring fees vaults", "what a key and a signature cost"],
    ["keyhold keyring fees vaults --key 12", "from the next request on"],
  ],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const info = await client.keyring({ keyring: args.keyring });
      const { key, signature } = { key: args.key ?? info.fees.key, signature: args.signature ?? info.fees.signature };
      const line = `${key} credits a key, ${signature} a signature`;
      if (args.key === null && args.signature === null) return result(info, () => line);
      const after = await client.changeKeyring({ keyring: args.keyring, change: { kind: "fees", key, signature } });
      return result(after, () => line);
    }),
});

export const keyringThreshold = defineCommand({
  args: {
    keyring: KEYRING,
    threshold: { type: "integer", min: 1, max: 32, required: true, description: "parties that must agree" },
  },
  data: DATA,
  examples: [["keyhold keyring threshold vaults --threshold 3", "for requests from now on"]],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const change = { kind: "threshold", threshold: args.threshold ?? 0 } as const;
      return shown(await client.changeKeyring({ keyring: args.keyring, change }));
    }),
});

export const keyringFollow = defineCommand({
  args: { keyring: KEYRING },
  data: DATA,
  details:
    "After a change of the federation's servers: the next manifest, signed by all, holds for requests from now on.",
  examples: [["keyhold keyring follow vaults", "go by the federation's newest manifest"]],
  run: async (args, ctx) =>
    withClient(ctx, async (client) =>
      shown(await client.changeKeyring({ keyring: args.keyring, change: { kind: "manifest" } })),
    ),
});

export const keyringOpen = defineCommand({
  args: { keyring: KEYRING },
  data: DATA,
  examples: [["keyhold keyring open vaults", "take requests again"]],
  run: async (args, ctx) =>
    withClient(ctx, async (client) =>
      shown(await client.changeKeyring({ keyring: args.keyring, change: { kind: "active", active: true } })),
    ),
});

export const keyringClose = defineCommand({
  args: { keyring: KEYRING },
  data: DATA,
  details: "It takes no new requests; open ones go on, and its keys stay.",
  examples: [["keyhold keyring close vaults", "take no more requests"]],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      await ctx.term.confirm(`Take no more requests for ${plain(args.keyring)}?`);
      return shown(await client.changeKeyring({ keyring: args.keyring, change: { kind: "active", active: false } }));
    }),
});
