import type { KeyholdClient } from "../client/api.ts";
import type { WorkspaceChange, WorkspaceInfo } from "../client/keyringapi.ts";
import { Fault } from "../errors.ts";
import { defineCommand } from "../ui/command.ts";
import { listing, type Result, result } from "../ui/output.ts";
import { withClient } from "../ui/session.ts";
import { plain } from "../ui/text.ts";
import { KEYRING_TYPES, keyringRequestRows, namedKey } from "./keyringshown.ts";
import { readPolicy } from "./policy.ts";

const WORKSPACE = {
  type: "positional",
  hint: "WORKSPACE",
  description: "its name, its id, or the start of the id",
  ask: "Workspace (keyhold workspace list)",
} as const;
const OPTIONAL = {
  type: "positional",
  hint: "WORKSPACE",
  description: WORKSPACE.description,
  required: false,
} as const;
const DATA = "{workspaceId, name, version, balance, escrowed, owners, admins, signers, document, drafts}";

function describe(one: WorkspaceInfo): string {
  const wide = Math.max(0, ...one.owners.map(({ name }) => plain(name).length));
  const owners = one.owners.map(
    ({ name, keyHex, own }) => `  ${plain(name).padEnd(wide)}  ${keyHex}${own ? "  (you)" : ""}`,
  );
  const drafts = one.drafts.flatMap(({ version, hashHex, signedBy, changes }) => [
    `  version ${version}  ${hashHex.slice(0, 16)}  signed by ${signedBy.map(plain).join(", ") || "nobody"}`,
    ...changes.map((line) => `    ${plain(line)}`),
  ]);
  const drafted = drafts.length === 0 ? [] : ["Changes that wait for admins (keyhold workspace agree)", ...drafts];
  return [
    `${plain(one.name)}: version ${one.version}`,
    `  id        ${one.workspaceId}`,
    `  balance   ${one.balance} credits${one.escrowed === 0 ? "" : `, ${one.escrowed} held for open requests`}`,
    `  changes   ${plain(one.admins)}`,
    `  requests  ${plain(one.signers)}`,
    "Owners",
    ...owners,
    ...drafted,
  ].join("\n");
}

const shown = (info: WorkspaceInfo): Result => result(info, () => describe(info));

export const workspaceMe = defineCommand({
  args: {},
  data: "{keyHex, words, registryHex}",
  details: "Give the key to whoever makes a workspace with you, and compare the words aloud: a registry could lie.",
  examples: [["keyhold workspace me", "the key by which workspaces know this account"]],
  run: async (_args, ctx) =>
    withClient(ctx, async (client) => {
      const me = await client.keyringOwner();
      return result(me, () => [me.keyHex, `  ${me.words.join(" ")}   (compare them aloud)`].join("\n"));
    }),
});

export const workspaceList = defineCommand({
  list: true,
  args: {},
  data: `{items:[${DATA}], next}`,
  examples: [["keyhold workspace list", "the workspaces that this account owns"]],
  run: async (_args, ctx) =>
    withClient(ctx, async (client) => {
      const items = await client.workspaces();
      const cells = items.map((one) => [
        one.name,
        one.workspaceId.slice(0, 16),
        String(one.owners.length),
        String(one.balance),
        String(one.drafts.length),
      ]);
      return listing({ items, next: null }, { heads: ["NAME", "ID", "OWNERS", "BALANCE", "DRAFTS"], cells });
    }),
});

/** Another owner, as `NAME=KEY`. @throws Fault usage */
export function ownerOf(text: string): { readonly name: string; readonly keyHex: string } {
  return namedKey(text, "an owner", "they see it by: keyhold workspace me");
}

export const workspaceCreate = defineCommand({
  args: {
    name: { type: "string", hint: "NAME", ask: "Name of the workspace", description: "name of the workspace" },
    as: { type: "string", hint: "NAME", description: "what you are called in it (default: the account's name)" },
    owner: { type: "list", hint: "NAME=KEY", description: "another owner (repeat); see `keyhold workspace me`" },
    admin: { type: "integer", min: 1, max: 64, description: "owners who agree to a change (default: more than half)" },
    sign: { type: "integer", min: 1, max: 64, description: "owners who agree to a request (default: more than half)" },
  },
  data: DATA,
  details: `The owners and how many of them must agree are a policy that all of them can verify: the registry, every server of a
federation and every enclave go by it, and its changes need the owners' signatures.`,
  examples: [
    ["keyhold workspace create --name treasury", "alone; more owners can come later"],
    [
      "keyhold workspace create --name treasury --as ann --owner ben=8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394 --admin 2 --sign 2",
      "two owners who must both agree",
    ],
  ],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const owners = args.owner.map(ownerOf);
      const most = Math.floor((owners.length + 1) / 2) + 1;
      const self = args.as ?? (await client.status()).account?.name ?? "me";
      const made = await client.createWorkspace({
        name: args.name ?? "",
        owners,
        self,
        admin: args.admin ?? most,
        sign: args.sign ?? most,
      });
      return shown(made);
    }),
});

export const workspaceShow = defineCommand({
  args: { workspace: OPTIONAL },
  data: DATA,
  examples: [["keyhold workspace show treasury", "owners, balance, and changes that wait"]],
  run: async (args, ctx) =>
    withClient(ctx, async (client) =>
      shown(await client.workspace({ workspace: await theOne(client, args.workspace) })),
    ),
});

/** The workspace that was named, or the only one. @throws Fault not_found, ambiguous */
export async function theOne(client: KeyholdClient, named: string | null): Promise<string> {
  if (named !== null) return named;
  const all = await client.workspaces();
  const [first, second] = all;
  if (first && !second) return first.workspaceId;
  if (!first)
    throw new Fault("not_found", "this account owns no workspace", { hint: "keyhold workspace create --name NAME" });
  throw new Fault("ambiguous", "this account owns more than one workspace", {
    hint: `name one: ${all.map(({ name }) => plain(name)).join(", ")}`,
  });
}

/** Makes a change; exit 9 while other admins must sign it too. */
async function changed(client: KeyholdClient, workspace: string, change: WorkspaceChange): Promise<Result> {
  const after = await client.changeWorkspace({ workspace, change });
  const waits = after.complete ? "" : "\nIt counts once enough owners have agreed: keyhold workspace agree";
  return result(after, () => `${describe(after)}${waits}`, { exit: after.complete ? 0 : 9 });
}

export const ownerAdd = defineCommand({
  args: {
    workspace: WORKSPACE,
    owner: {
      type: "positional",
      hint: "NAME=KEY",
      description: "as `keyhold workspace me` shows it to them",
      ask: "New owner (NAME=KEY, as `keyhold workspace me` shows the key to them)",
    },
  },
  data: `${DATA.slice(0, -1)}, complete}`,
  details: "Compare the words of the key with its owner first: whoever holds it may ask, vote and agree to changes.",
  examples: [
    [
      "keyhold workspace owner add treasury eve=8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394",
      "exits 9 until enough owners have agreed",
    ],
  ],
  run: async (args, ctx) => {
    const owner = ownerOf(args.owner);
    return withClient(ctx, (client) => changed(client, args.workspace, { kind: "ownerAdded", ...owner }));
  },
});

export const ownerRemove = defineCommand({
  args: {
    workspace: WORKSPACE,
    owner: { type: "positional", hint: "NAME", description: "an owner's name", ask: "Owner" },
  },
  data: `${DATA.slice(0, -1)}, complete}`,
  details: "Their open requests end with it, for the newest version of the policy counts. The last owner stays.",
  examples: [["keyhold workspace owner remove treasury eve", "exits 9 until enough owners have agreed"]],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      await ctx.term.confirm(`Remove ${plain(args.owner)} from ${plain(args.workspace)}?`);
      return changed(client, args.workspace, { kind: "ownerRemoved", name: args.owner });
    }),
});

export const workspacePolicy = defineCommand({
  args: {
    workspace: WORKSPACE,
    admin: { type: "integer", min: 1, max: 64, description: "owners who must agree to a change" },
    sign: { type: "integer", min: 1, max: 64, description: "owners who must agree to a request" },
    file: { type: "string", hint: "FILE", description: "the whole policy, as docs/policies.md describes it" },
  },
  data: `${DATA.slice(0, -1)}, complete}`,
  details: `Without flags it shows the policy as --file takes it. Limits on type, amount, recipients, rate and time are rules of that
file; \`keyhold policy test\` explains what it would decide.`,
  examples: [
    ["keyhold workspace policy treasury --sign 2", "two owners agree to each request from now on"],
    ["keyhold workspace policy treasury --file treasury.json", "rules of your own"],
    ["keyhold workspace policy treasury", "show it"],
  ],
  run: async (args, ctx) => {
    const quorums = args.admin !== null || args.sign !== null;
    if (quorums && args.file !== null) throw new Fault("usage", "give --file, or --admin and --sign", {});
    const document = args.file === null ? null : readPolicy(args.file);
    return withClient(ctx, async (client) => {
      const { workspace } = args;
      if (document !== null) return changed(client, workspace, { kind: "document", document });
      if (quorums) return changed(client, workspace, { kind: "quorums", admin: args.admin, sign: args.sign });
      const info = await client.workspace({ workspace });
      return result(info, () => JSON.stringify(info.document, null, 2).split("\n").map(plain).join("\n"));
    });
  },
});

export const workspaceAgree = defineCommand({
  args: {
    workspace: WORKSPACE,
    draft: { type: "positional", required: false, hint: "HASH", description: "which change (default: the only one)" },
  },
  data: `${DATA.slice(0, -1)}, complete}`,
  details: "Shows the change and signs it: who the owners would be, and who would have to agree.",
  examples: [["keyhold workspace agree treasury", "sign the change that another owner began"]],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const info = await client.workspace({ workspace: args.workspace });
      const found = info.drafts.filter(({ hashHex }) => args.draft === null || hashHex.startsWith(args.draft));
      const [draft, other] = found;
      if (!draft) {
        const what = args.draft === null ? "change" : `change "${plain(args.draft)}"`;
        throw new Fault("not_found", `no ${what} of ${plain(info.name)} waits`, {
          hint: `keyhold workspace show ${plain(info.name)}`,
        });
      }
      if (other) {
        throw new Fault("ambiguous", "more than one change waits", {
          hint: `name one by its hash: ${found.map(({ hashHex }) => hashHex.slice(0, 16)).join(", ")}`,
        });
      }
      if (!ctx.flags.json) ctx.out.notice(describe(info));
      await ctx.term.confirm(`Agree to version ${draft.version} (${draft.hashHex.slice(0, 16)})?`);
      return changed(client, args.workspace, { kind: "approve", hashHex: draft.hashHex });
    }),
});

export const workspaceInbox = defineCommand({
  list: true,
  args: {},
  data: "{items:[{requestId, workspace, keyring, kind, status, words, parties, votes, items, expiresAt}], next}",
  examples: [["keyhold workspace inbox", "requests of your workspaces that wait for your word"]],
  run: async (_args, ctx) =>
    withClient(ctx, async (client) => {
      const items = await client.keyringInbox();
      for (const { name, drafts } of await client.workspaces()) {
        const waiting = drafts.filter(({ signedBy }) => signedBy.length > 0).length;
        if (waiting > 0) {
          const what = waiting === 1 ? "a change" : `${waiting} changes`;
          ctx.out.notice(`${what} of ${plain(name)} waits for owners: keyhold workspace agree ${plain(name)}`);
        }
      }
      return listing({ items, next: null }, keyringRequestRows(items));
    }),
});

export const workspaceKeys = defineCommand({
  list: true,
  args: {
    workspace: OPTIONAL,
    keyring: { type: "string", hint: "NAME", description: "of this keyring alone" },
    type: { type: "enum", options: KEYRING_TYPES, description: "of this type alone" },
  },
  data: "{items:[{keyId, workspace, keyring, type, publicKeyHex, shown, threshold, holders, confirmedBy, createdAt}], next}",
  details: "Each key was verified here: its certificate, and the responses of enough parties.",
  examples: [
    ["keyhold workspace keys treasury --type secp256k1", "the keys of one type"],
    ["keyhold key address 4f1c2a9b0d --as evm", "what one is called elsewhere"],
  ],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const workspace = await theOne(client, args.workspace);
      const items = await client.keyringKeys({ workspace, keyring: args.keyring, type: args.type });
      const cells = items.map((one) => [one.keyId.slice(0, 16), one.type, one.keyring, one.shown, one.publicKeyHex]);
      return listing({ items, next: null }, { heads: ["KEY", "TYPE", "KEYRING", "CUSTODY", "PUBLIC KEY"], cells });
    }),
});

const signed = (amount: number): string => (amount > 0 ? `+${amount}` : String(amount));

/** What an entry changes of the balance, and of what is held for open requests. */
function movements({ kind, amount }: { readonly kind: string; readonly amount: number }): readonly [string, string] {
  if (kind === "pay") return ["", signed(amount)];
  return [signed(amount), kind === "escrow" || kind === "refund" ? signed(-amount) : ""];
}

export const workspaceLedger = defineCommand({
  list: true,
  args: { workspace: OPTIONAL },
  data: "{items:[{at, kind, amount, requestId, note}], next}",
  examples: [["keyhold workspace ledger treasury", "credits, fees and refunds, oldest first"]],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const items = await client.workspaceLedger({ workspace: await theOne(client, args.workspace) });
      const cells = items.map((one) => [
        one.at,
        one.kind,
        ...movements(one),
        one.requestId?.slice(0, 16) ?? "",
        one.note,
      ]);
      return listing({ items, next: null }, { heads: ["AT", "KIND", "BALANCE", "HELD", "REQUEST", "NOTE"], cells });
    }),
});

export const workspaceEvents = defineCommand({
  list: true,
  args: {
    workspace: OPTIONAL,
    after: { type: "integer", min: 0, max: Number.MAX_SAFE_INTEGER, default: 0, description: "only later ones" },
  },
  data: "{items:[{seq, at, event, requestId, keyId, detail}], next}",
  examples: [["keyhold workspace events treasury --after 120", "what happened since, by sequence number"]],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const workspace = await theOne(client, args.workspace);
      const items = await client.workspaceEvents({ workspace, after: args.after });
      const cells = items.map((one) => [
        String(one.seq),
        one.at,
        one.event,
        one.requestId?.slice(0, 16) ?? one.keyId?.slice(0, 16) ?? "",
        one.detail,
      ]);
      return listing({ items, next: null }, { heads: ["SEQ", "AT", "EVENT", "ABOUT", "DETAIL"], cells });
    }),
});
