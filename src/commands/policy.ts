import type { PolicyInfo } from "../client/federationapi.ts";
import { Fault } from "../errors.ts";
import { type FederationId, hashId } from "../ids.ts";
import { defineCommand } from "../ui/command.ts";
import { result } from "../ui/output.ts";
import { readSecretFile } from "../ui/password.ts";
import { withClient } from "../ui/session.ts";
import { plain } from "../ui/text.ts";
import { chosen } from "./federation.ts";
import { amountOf } from "./keysign.ts";

const FEDERATION = {
  federation: { type: "string", hint: "NAME", description: "which federation (default: the only one)" },
} as const;

function describe(policy: PolicyInfo): string {
  const place = `version ${policy.version}, on servers ${policy.current.join(", ") || "none"}`;
  const behind = policy.behind.length === 0 ? "" : `; behind: ${policy.behind.join(", ")}`;
  return [
    `${plain(policy.name)}: ${place}${behind}`,
    `  id    ${policy.policyId}`,
    `  hash  ${policy.hashHex}`,
    ...JSON.stringify(policy.document, null, 2).split("\n").map(plain),
  ].join("\n");
}

export const policyShow = defineCommand({
  args: {
    name: { type: "positional", required: false, description: "name of one policy (default: all)" },
    ...FEDERATION,
  },
  data: "{items:[{policyId, name, version, hashHex, document, current, behind}]}",
  examples: [["keyhold policy show", "every policy that this account knows, as `policy set` takes it"]],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const { name } = chosen(await client.federations(), args.federation);
      const all = await client.policies({ federation: name });
      const items = all.filter((one) => args.name === null || one.name === args.name || one.policyId === args.name);
      if (items.length === 0 && args.name !== null) {
        throw new Fault("not_found", `there is no policy "${args.name}"`, { hint: "keyhold policy show" });
      }
      return result({ items }, () => items.map(describe).join("\n\n"));
    }),
});

const FILE = { type: "positional", hint: "FILE", description: "the policy, as docs/policies.md describes it" } as const;
const FILE_MAX = 256 * 1_024;

/** A policy file, parsed as JSON. @throws Fault bad_input */
export function readPolicy(path: string): unknown {
  const bytes = readSecretFile(path, FILE_MAX + 1, "accept");
  if (bytes.length > FILE_MAX) throw new Fault("too_large", `a policy has at most ${FILE_MAX / 1_024} KiB`);
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw new Fault("bad_input", "a policy file is JSON in UTF-8", { hint: "docs/policies.md has examples" });
  }
}

/** Where a policy stands that is only tried. */
const UNPLACED = { federationId: hashId<FederationId>(new Uint8Array(32)), version: 1, previous: new Uint8Array(32) };

export const policySet = defineCommand({
  args: { file: FILE, ...FEDERATION },
  data: "{policyId, name, version, hashHex, document, current, behind, complete}",
  details: `Makes a policy, or its next version, and brings it to every server. A version counts once enough of the admins that
the version before names have signed it; until then the command exits 9, and each of them gives the same file.`,
  examples: [["keyhold policy set board.json", "two of three board members for each signature"]],
  run: async (args, ctx) => {
    const document = readPolicy(args.file);
    return withClient(ctx, async (client) => {
      const { name } = chosen(await client.federations(), args.federation);
      const made = await client.setPolicy({ federation: name, document });
      const waits = made.complete ? "" : "\nIt counts once more of its admins have given the same file.";
      return result(made, () => `${describe(made)}${waits}`, { exit: made.complete ? 0 : 9 });
    });
  },
});

export const policyTest = defineCommand({
  args: {
    file: FILE,
    action: {
      type: "enum",
      options: ["generate", "import", "sign", "release", "reshare", "retrieve", "export"],
      default: "sign",
      description: "what is asked for (release: the shares of an ECDSA key, for one signature)",
    },
    type: {
      type: "enum",
      options: ["bytes", "ed25519", "schnorr", "secp256k1", "p256", "ristretto255"],
      default: "ed25519",
      description: "of what kind of key",
    },
    amount: { type: "string", hint: "TEXT", description: "what it is about, as whole units and their name" },
    recipient: { type: "list", hint: "ADDRESS", description: "it is a transaction that pays this one (repeat)" },
    requester: { type: "string", hint: "NAME", description: "the approver who asks (default: somebody else)" },
    approve: { type: "list", hint: "NAME", description: "an approver or engine that agrees (repeat)" },
    reject: { type: "list", hint: "NAME", description: "an approver or engine that refuses (repeat)" },
    used: { type: "integer", min: 0, max: 1_000_000, default: 0, description: "uses of the key so far, all just now" },
    at: { type: "time", description: "when (default: now)" },
  },
  data: "{decision, rule, why, missing, remotes}",
  details: "Decides as a server would, offline, and says why: allow, deny, or wait and for whom.",
  examples: [
    ["keyhold policy test board.json --action sign --approve alice", "is Alice's word enough?"],
    ['keyhold policy test board.json --amount "2500 EUR" --approve alice --approve bob', "and of this amount?"],
    ['keyhold policy test board.json --recipient bc1q… --amount "5000 sat"', "a payment to this address?"],
  ],
  run: async (args) => {
    const { tryPolicy } = await import("../protocol/federation/policytrial.ts");
    const { policyFromJson } = await import("../wire/federation/policyfile.ts");
    const nowMs = args.at ?? Date.now();
    const document = policyFromJson(readPolicy(args.file), { ...UNPLACED, createdAtMs: nowMs });
    const { action, type, requester, approve, reject, used } = args;
    const amount = amountOf(args);
    const recipients = args.recipient.length === 0 ? null : args.recipient;
    const found = tryPolicy({ document, action, type, amount, recipients, requester, approve, reject, used, nowMs });
    const { decision, rule, why } = found;
    const data = {
      decision,
      rule,
      why,
      missing: found.missing.map(({ name }) => name),
      remotes: found.remotes.map(({ name }) => name),
    };
    const waits = [...data.missing, ...data.remotes];
    const lines = [
      rule === null ? decision : `${decision}, by the rule ${rule}`,
      `  ${why}`,
      ...(waits.length === 0 ? [] : [`  may still agree: ${waits.join(", ")}`]),
    ];
    return result(data, () => lines.map((line) => plain(line)).join("\n"));
  },
});
