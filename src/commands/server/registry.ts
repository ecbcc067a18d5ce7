import { Fault } from "../../errors.ts";
import { asHashId, isHashId, type KeyringId, type WorkspaceId } from "../../ids.ts";
import { defineCommand } from "../../ui/command.ts";
import { listing, result } from "../../ui/output.ts";
import { plain } from "../../ui/text.ts";
import { callControl } from "../../wire/control.ts";
import { DIR, demandServer } from "./admin.ts";

const AMOUNT_MAX = 1_000_000_000_000;
const NOTE = { note: { type: "string", hint: "TEXT", default: "", description: "kept in the ledger" } } as const;

/** An id that an operator was told. @throws Fault usage */
function idOf<T extends WorkspaceId | KeyringId>(text: string, what: string): T {
  if (isHashId(text)) return asHashId<T>(text);
  throw new Fault("usage", `${what} is named by its id of 64 hex digits here`, {
    hint: "its owner sees it by `keyhold workspace show` or `keyhold keyring show`",
  });
}

/** Says of what the registry does not know where it is to be seen. */
const unknownTo =
  (hint: string) =>
  (error: unknown): never => {
    if (!(error instanceof Fault) || error.code !== "not_found") throw error;
    throw new Fault("not_found", error.message, { hint });
  };

export const workspaceCredit = defineCommand({
  args: {
    workspace: { type: "positional", hint: "ID", description: "id of the workspace", ask: "Workspace (its whole id)" },
    amount: { type: "positional", hint: "CREDITS", description: "whole credits", ask: "Credits" },
    ...NOTE,
    ...DIR,
  },
  data: "{workspaceId, balance}",
  details: "On the registry's own machine. What a credit is worth is between the operator and the owners.",
  examples: [
    [
      "keyhold workspace credit 8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394 100 --note invoice-17",
      "100 credits more",
    ],
  ],
  run: async (args, ctx) => {
    const amount = /^[1-9][0-9]{0,12}$/.test(args.amount) ? Number(args.amount) : Number.NaN;
    if (!(amount <= AMOUNT_MAX)) throw new Fault("usage", `an amount is a whole number from 1 to ${AMOUNT_MAX}`);
    const workspaceId = idOf<WorkspaceId>(args.workspace, "a workspace");
    const dir = await demandServer(ctx, args.dir);
    const { balance } = await callControl(dir, "registry.credit", { workspaceId, amount, note: args.note }).catch(
      unknownTo("its owner sees the id by: keyhold workspace show"),
    );
    return result({ workspaceId, balance }, () => `balance ${balance} credits`);
  },
});

export const keyringBalances = defineCommand({
  list: true,
  args: { ...DIR },
  data: "{items:[{account, balance}], next, sum, sound}",
  details: "Computes every balance from the ledger again: the sum is zero, or the command exits 8.",
  examples: [["keyhold keyring balances", "workspaces, escrows, parties, and the operator's own account"]],
  run: async (args, ctx) => {
    const dir = await demandServer(ctx, args.dir);
    const found = await callControl(dir, "registry.balances", {});
    const items = found.items.map(({ account, balance }) => ({ account, balance }));
    const cells = items.map((one) => [plain(one.account), String(one.balance)]);
    if (!found.sound) throw new Fault("integrity", "the ledger does not add up", { hint: "keyhold server check" });
    return listing({ items, next: null, sum: 0, sound: true }, { heads: ["ACCOUNT", "BALANCE"], cells });
  },
});

export const keyringEvents = defineCommand({
  list: true,
  args: {
    after: { type: "integer", min: 0, max: Number.MAX_SAFE_INTEGER, default: 0, description: "only later ones" },
    ...DIR,
  },
  data: "{items:[{seq, at, event, workspaceId, keyringId, requestId, keyId, detail}], next}",
  details: "On the registry's own machine: everything that happened, 64 at a time; `next` is where to go on.",
  examples: [["keyhold keyring events --after 120", "what happened since, by sequence number"]],
  run: async (args, ctx) => {
    const dir = await demandServer(ctx, args.dir);
    const { items: found, more } = await callControl(dir, "registry.events", { after: args.after });
    const items = found.map(({ atMs, ...one }) => ({ ...one, at: new Date(atMs).toISOString() }));
    const cells = items.map((one) => [
      String(one.seq),
      one.at,
      one.event,
      (one.requestId ?? one.keyId ?? one.workspaceId ?? one.keyringId ?? "").slice(0, 16),
      one.detail,
    ]);
    const next = more ? String(items.at(-1)?.seq ?? args.after) : null;
    return listing({ items, next }, { heads: ["SEQ", "AT", "EVENT", "ABOUT", "DETAIL"], cells });
  },
});

export const keyringPayout = defineCommand({
  args: {
    keyring: { type: "positional", hint: "ID", description: "id of the keyring", ask: "Keyring (its whole id)" },
    party: { type: "positional", hint: "NAME", description: "name of the party", ask: "Party" },
    amount: { type: "positional", hint: "CREDITS", description: "whole credits", ask: "Credits" },
    ...NOTE,
    ...DIR,
  },
  data: "{keyringId, party, balance}",
  details: "On the registry's own machine: the credits that the party has earned, and was paid for by other means.",
  examples: [
    [
      "keyhold keyring payout 8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394 north 30 --note 2026-11",
      "30 credits are settled",
    ],
  ],
  run: async (args, ctx) => {
    const amount = /^[1-9][0-9]{0,12}$/.test(args.amount) ? Number(args.amount) : Number.NaN;
    if (!(amount <= AMOUNT_MAX)) throw new Fault("usage", `an amount is a whole number from 1 to ${AMOUNT_MAX}`);
    const keyringId = idOf<KeyringId>(args.keyring, "a keyring");
    const dir = await demandServer(ctx, args.dir);
    const { party, note } = args;
    const { balance } = await callControl(dir, "registry.payout", { keyringId, party, amount, note }).catch(
      unknownTo("keyhold keyring balances"),
    );
    return result({ keyringId, party, balance }, () => `${plain(party)} has ${balance} credits left`);
  },
});
