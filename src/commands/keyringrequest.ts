import type { KeyholdClient } from "../client/api.ts";
import type { KeyringRequestInfo, SignatureItem } from "../client/keyringapi.ts";
import { Fault } from "../errors.ts";
import { checkSignable, transactionFacts } from "../protocol/transaction/index.ts";
import { type Context, defineCommand } from "../ui/command.ts";
import { type Result, result } from "../ui/output.ts";
import { readSecretFile } from "../ui/password.ts";
import { withClient } from "../ui/session.ts";
import { plain } from "../ui/text.ts";
import { theKeyring } from "./keyring.ts";
import { aligned, KEYRING_TYPES, keyringEnded, keyringRequestLines, newLines, unwellParties } from "./keyringshown.ts";
import { amountOf } from "./keysign.ts";
import { pause } from "./pause.ts";
import { transactionBytes } from "./transactionfile.ts";
import { theOne } from "./workspace.ts";

const DATA =
  "{requestId, workspace, keyring, kind, status, approved, why, fee, threshold, words, parties, votes, items, finishable, expiresAt}";
const LOOK_MS = 1_000;
/** Looks between two at the parties of a request that waits. */
const PARTIES_LOOKS = 5;
const MESSAGE_MAX = 64 * 1_024;

/** What a request has come to: exit 9 while it is open. @throws Fault denied, timed_out, conflict */
export function keyringResult(info: KeyringRequestInfo): Result {
  if (info.status === "fulfilled") return result(info, () => keyringRequestLines(info));
  if (keyringEnded(info.status)) {
    const code = info.status === "rejected" ? "denied" : info.status === "expired" ? "timed_out" : "conflict";
    throw new Fault(code, `the request was ${info.status}`, {
      ...(info.why !== "" && { why: info.why }),
      hint: `the fee of ${info.fee} credits was given back; keyhold request show ${info.requestId.slice(0, 16)}`,
    });
  }
  const goOn = `To wait for it: keyhold request watch ${info.requestId.slice(0, 16)}`;
  return result(info, () => `${keyringRequestLines(info)}\n${goOn}`, { exit: 9 });
}

/** Looks until a request is over, finishing what waits for this client; says what changed, and which parties are away. */
export async function watchKeyring(
  ctx: Context,
  client: KeyholdClient,
  requestId: string,
): Promise<KeyringRequestInfo> {
  let last = "";
  let away = "";
  for (let look = 0; ; look++) {
    const info = await client.continueKeyringRequest({ requestId });
    if (keyringEnded(info.status)) return info;
    if (!ctx.flags.json && !ctx.flags.quiet) {
      const text = keyringRequestLines(info);
      if (text !== last) ctx.out.notice(newLines(last, text));
      last = text;
      const unwell = look % PARTIES_LOOKS === 1 ? (await unwellParties(client, info)).join("\n") : away;
      if (unwell !== away && unwell !== "") ctx.out.notice(newLines(away, unwell));
      away = unwell;
    }
    await pause(LOOK_MS, ctx.signal);
  }
}

/** Says what a request would cost, and asks; the fee that was agreed to: more than that is not paid. */
async function demandFee(
  ctx: Context,
  client: KeyholdClient,
  keyring: string,
  workspace: string,
  count: number | null,
): Promise<number> {
  const { fees, name } = await client.keyring({ keyring });
  const fee = count === null ? fees.key : fees.signature * count;
  if (fee === 0) return fee;
  const { balance, name: whose } = await client.workspace({ workspace });
  if (balance < fee) {
    throw new Fault("denied", `the request costs ${fee} credits, and ${plain(whose)} has ${balance}`, {
      hint: "the registry's operator credits it: keyhold workspace credit",
    });
  }
  await ctx.term.confirm(`${plain(name)} takes ${fee} of ${plain(whose)}'s ${balance} credits. Go on?`);
  return fee;
}

export const requestKey = defineCommand({
  args: {
    workspace: { type: "string", hint: "NAME", description: "for which workspace (default: the only one)" },
    keyring: { type: "string", hint: "NAME", description: "from which keyring (default: the only one)" },
    type: { type: "enum", options: KEYRING_TYPES, required: true, description: "what kind of key" },
    wait: { type: "boolean", description: "stay until it is over" },
  },
  data: DATA,
  details: `The fee is held when the request is made, paid once enough parties have answered, and given back otherwise. The command
exits 9 while the request is open: other owners agree by \`keyhold approval approve\`.`,
  examples: [
    ["keyhold request key --workspace treasury --keyring vaults --type secp256k1", "a key that no server holds"],
    ["keyhold request key --type ed25519 --wait", "of the only workspace and keyring; stays until it is there"],
  ],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const workspace = await theOne(client, args.workspace);
      const keyring = await theKeyring(client, args.keyring);
      const feeMax = await demandFee(ctx, client, keyring, workspace, null);
      const made = await client.requestKey({ workspace, keyring, type: args.type ?? "ed25519", feeMax });
      return keyringResult(args.wait ? await watchKeyring(ctx, client, made.requestId) : made);
    }),
});

/** A file that is to be signed, within what a request carries. @throws Fault too_large */
function contentOf(path: string): Uint8Array {
  const bytes = readSecretFile(path, MESSAGE_MAX + 1, "accept");
  if (bytes.length > MESSAGE_MAX) throw new Fault("too_large", `a message has at most ${MESSAGE_MAX / 1_024} KiB`);
  return bytes;
}

interface SignatureArgs {
  readonly key: readonly string[];
  readonly messageFile: string | null;
  readonly evmFile: string | null;
  readonly psbtFile: string | null;
  readonly digest: string | null;
  readonly amount: string | null;
}

/** What is to be signed: by each key once; of a PSBT an input for each key, in their order. @throws Fault usage */
function itemsOf(args: SignatureArgs): readonly SignatureItem[] {
  if (args.key.length === 0) throw new Fault("usage", "say which key: --key ID", { hint: "keyhold workspace keys" });
  const given = [args.messageFile, args.evmFile, args.psbtFile, args.digest].filter((one) => one !== null);
  if (given.length !== 1) {
    const what = given.length === 0 ? "say what is to be signed" : "one thing is signed at a time";
    throw new Fault("usage", `${what}: --message-file, --evm-file, --psbt-file or --digest`);
  }
  const amount = amountOf(args);
  const declared = args.evmFile !== null || args.psbtFile !== null;
  if (declared && amount !== null) throw new Fault("usage", "of a transaction the amount is what it says itself");
  if (args.digest !== null && !/^[0-9a-fA-F]{64}$/.test(args.digest)) {
    throw new Fault("usage", "--digest takes 64 hex digits");
  }
  const { form, message } =
    args.evmFile !== null
      ? { form: "evm" as const, message: transactionBytes(contentOf(args.evmFile)) }
      : args.psbtFile !== null
        ? { form: "bitcoin" as const, message: transactionBytes(contentOf(args.psbtFile)) }
        : args.digest !== null
          ? { form: "digest" as const, message: Uint8Array.fromHex(args.digest.toLowerCase()) }
          : { form: "message" as const, message: contentOf(args.messageFile ?? "") };
  return args.key.map((key, i) => ({ key, form, message, input: form === "bitcoin" ? i : 0, amount }));
}

/** Says what a transaction does, before its fee is asked for. @throws Fault not_found; bad_input for what cannot be signed */
async function sayWhat(ctx: Context, client: KeyholdClient, item: SignatureItem): Promise<void> {
  const { type, publicKeyHex } = await client.keyringKey({ key: item.key });
  const { form, input, message, amount } = item;
  // Schnorr keys are shown as scripts have them, without the byte of their sign
  const publicKey = Uint8Array.fromHex(type === "schnorr" ? `02${publicKeyHex}` : publicKeyHex);
  checkSignable({ type, publicKey, form, input, message, amount });
  const facts = transactionFacts({ form, input, message }, { type, publicKey });
  if (facts === null || ctx.flags.json) return;
  ctx.out.notice(aligned(facts.lines.map(({ label, value }) => [label, value])).join("\n"));
}

export const requestSignature = defineCommand({
  args: {
    key: { type: "list", hint: "ID", description: "which key; of a PSBT repeat it for each input, in order" },
    messageFile: { type: "string", hint: "FILE", description: "a message" },
    evmFile: { type: "string", hint: "FILE", description: "an unsigned EVM transaction" },
    psbtFile: { type: "string", hint: "FILE", description: "a PSBT, for Bitcoin" },
    digest: {
      type: "string",
      hint: "HEX",
      description: "32 bytes that are signed as they are: nobody sees what they mean",
    },
    amount: { type: "string", hint: "TEXT", description: "what a message is about, as whole units and their name" },
    wait: { type: "boolean", description: "stay until it is over" },
  },
  data: DATA,
  details: `Transactions are parsed by this client, the registry, every server and every enclave: owners see recipient and amount
before they agree, and policies go by them. With ecdsa keys this client makes the signature of released shares, and the
key is marked for good.`,
  examples: [
    ["keyhold request signature --key 4f1c2a9b0d --message-file contract.pdf.sha", "by a key of the workspace"],
    ["keyhold request signature --key 4f1c2a9b0d --evm-file unsigned.hex --wait", "an EVM transaction"],
    ["keyhold request signature --key 77aa01c2e4 --key 77aa01c2e4 --psbt-file spend.psbt", "two inputs of a PSBT"],
  ],
  run: async (args, ctx) => {
    const items = itemsOf(args);
    return withClient(ctx, async (client) => {
      const key = await client.keyringKey({ key: items[0]?.key ?? "" });
      for (const item of items) await sayWhat(ctx, client, item);
      const feeMax = await demandFee(ctx, client, key.keyring, key.workspace, items.length);
      const made = await client.requestSignatures({ items, feeMax });
      return keyringResult(args.wait ? await watchKeyring(ctx, client, made.requestId) : made);
    });
  },
});
