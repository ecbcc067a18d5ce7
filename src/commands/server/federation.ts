import { Fault } from "../../errors.ts";
import {
  type FederationServer,
  type Manifest,
  manifestHash,
  serverFingerprint,
} from "../../protocol/federation/manifest.ts";
import { digestWords } from "../../protocol/federation/words.ts";
import { type Context, defineCommand } from "../../ui/command.ts";
import { listing, result } from "../../ui/output.ts";
import { plain } from "../../ui/text.ts";
import type { ControlInput, ControlName, ControlOutput } from "../../wire/control.ts";
import { askRunning, DIR, demandServer } from "./admin.ts";

/**
 * Asks the running server alone: shares are used by one process, the one that serves.
 *
 * @throws Fault unreachable when none runs on the directory
 */
export async function askServing<N extends ControlName>(
  ctx: Context,
  given: string | null,
  name: N,
  input: ControlInput<N>,
): Promise<ControlOutput<N>> {
  const dir = await demandServer(ctx, given);
  const answer = await askRunning(dir, name, input);
  if (answer !== null) return answer;
  throw new Fault("unreachable", `no server runs on ${JSON.stringify(dir)}`, {
    why: "federations and policies are changed through the server that runs",
    hint: `start it: keyhold serve --dir ${dir}`,
  });
}

type Item = ControlOutput<"federation.list">["items"][number];

const words = (hash: Uint8Array): string => digestWords(hash).join(" ");

const factsOf = ({ manifest, state, index, expiresAtMs }: Item) => ({
  federationId: manifest.federationId,
  name: manifest.name,
  epoch: manifest.epoch,
  state,
  threshold: manifest.threshold,
  index,
  words: words(manifestHash(manifest)),
  servers: manifest.servers.map((one) => ({
    index: one.index,
    url: one.url,
    pin: one.pin,
    policy: one.policy,
    words: words(serverFingerprint(one)),
    own: one.index === index,
  })),
  expiresAt: expiresAtMs === null ? null : new Date(expiresAtMs).toISOString(),
});

export const federationList = defineCommand({
  list: true,
  args: DIR,
  data: "{items:[{federationId, name, epoch, state, threshold, index, words, servers, expiresAt}], next}",
  details: "A draft that is `waiting` becomes a federation once every operator has accepted it.",
  examples: [["keyhold server federation list", "drafts that wait for you, and what this server belongs to"]],
  run: async (args, ctx) => {
    const { items } = await askServing(ctx, args.dir, "federation.list", {});
    const shown = items.map(factsOf);
    const cells = shown.map((one) => [
      one.federationId.slice(0, 16),
      one.name,
      String(one.epoch),
      one.state,
      `${one.threshold} of ${one.servers.length}`,
      one.expiresAt ?? "",
    ]);
    return listing(
      { items: shown, next: null },
      { heads: ["ID", "NAME", "EPOCH", "STATE", "KEYS NEED", "UNTIL"], cells },
    );
  },
});

const ID_MIN = 4;

/** The one federation or draft that an id, its beginning or a name means. @throws Fault not_found, ambiguous */
async function chosen(
  ctx: Context,
  dir: string | null,
  given: string,
  states: readonly Item["state"][],
): Promise<Item> {
  const { items } = await askServing(ctx, dir, "federation.list", {});
  const found = items.filter(
    ({ manifest, state }) =>
      states.includes(state) &&
      (manifest.name === given || (given.length >= ID_MIN && manifest.federationId.startsWith(given.toLowerCase()))),
  );
  const [one] = found;
  if (!one)
    throw new Fault("not_found", `there is no such federation: "${given}"`, { hint: "keyhold server federation list" });
  if (found.some(({ manifest }) => manifest.federationId !== one.manifest.federationId))
    throw new Fault("ambiguous", `more than one federation is meant by "${given}"`, { hint: "give more of its id" });
  // of several drafts of one federation the newest epoch
  return found.reduce((a, b) => (b.manifest.epoch > a.manifest.epoch ? b : a));
}

function line(one: FederationServer, own: boolean): string[] {
  return [
    `  ${one.index}  ${one.url}${own ? "   (this server)" : ""}`,
    `     pin     ${one.pin}`,
    `     words   ${words(serverFingerprint(one))}`,
    `     policy  ${one.policy ?? "none: the owner's word is enough"}`,
  ];
}

function describe(manifest: Manifest, index: number | null): string[] {
  return [
    `federation ${manifest.name}   (epoch ${manifest.epoch}, id ${manifest.federationId})`,
    `keys need ${manifest.threshold} of ${manifest.servers.length} servers`,
    ...manifest.servers.flatMap((one) => line(one, one.index === index)),
    ...(index === null ? ["This server is no longer among them."] : []),
    `words of the whole   ${words(manifestHash(manifest))}`,
  ];
}

const ID = { id: { type: "positional", hint: "ID", description: "its id, the beginning of it, or its name" } } as const;

export const federationAccept = defineCommand({
  args: { ...ID, ...DIR },
  data: "{federationId, name, epoch, state, threshold, index, words, servers, expiresAt}",
  details:
    "Shows the whole manifest first. Compare the words of each server, and of the whole, with its operators by a way " +
    "that nobody can forge: what you accept, your enclave signs.",
  examples: [["keyhold server federation accept 4f1c2a9b", "let this server's enclave sign the manifest"]],
  run: async (args, ctx) => {
    const item = await chosen(ctx, args.dir, args.id, ["waiting", "accepted", "left", "member"]);
    const { manifest, index } = item;
    if (item.state === "waiting" || item.state === "left") {
      if (!ctx.flags.json) ctx.out.notice(describe(manifest, index).map(plain).join("\n"));
      await ctx.term.confirm("Accept it? Every server's words must be those that its operator reads out");
    }
    const { federationId, epoch } = manifest;
    const input = { federationId, epoch, hash: manifestHash(manifest) };
    const { state } = await askServing(ctx, args.dir, "federation.accept", input);
    const next = state === "member" ? "" : "\nOnce all have accepted: keyhold federation create … once more.";
    return result({ ...factsOf(item), state }, () => `accepted ${plain(manifest.name)}${next}`);
  },
});

export const federationLeave = defineCommand({
  args: { ...ID, ...DIR },
  data: "{federationId, drafts, left}",
  details:
    "Of a draft: drops it. Of a federation: this server answers no more requests of it; its shares stay sealed where " +
    "they are, and `accept` takes it back in.",
  examples: [["keyhold server federation leave 4f1c2a9b", "drop a draft, or end the membership"]],
  run: async (args, ctx) => {
    const { manifest } = await chosen(ctx, args.dir, args.id, ["waiting", "accepted", "member"]);
    const { federationId, name } = manifest;
    await ctx.term.confirm(`Leave the federation ${plain(name)}? Keys that need this server's share can't be used`);
    const done = await askServing(ctx, args.dir, "federation.leave", { federationId });
    return result({ federationId, ...done }, () => (done.left ? `left ${plain(name)}` : `dropped ${plain(name)}`));
  },
});
