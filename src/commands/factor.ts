import { agentSocket, lockAgent } from "../client/agent.ts";
import type { KeyholdClient } from "../client/api.ts";
import { draftFactor } from "../client/factor.ts";
import type { NewFactor } from "../client/factorapi.ts";
import { openProfile } from "../client/home.ts";
import type { Profile } from "../client/profile.ts";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { FACTOR } from "../protocol/factor.ts";
import { base32Key } from "../protocol/otp.ts";
import type { Values } from "../ui/args.ts";
import { type Context, defineCommand } from "../ui/command.ts";
import { factorDialog, recoveryText } from "../ui/enrolfactor.ts";
import { factorSource, hasUnaskedFactor } from "../ui/factor.ts";
import { type ReservedFile, reserveNewFile } from "../ui/outfile.ts";
import { type Result, result } from "../ui/output.ts";
import { needPassword, readSecretFile } from "../ui/password.ts";
import { activeProfile, homeOf, kdfOf, surroundings, withClient } from "../ui/session.ts";
import { plain } from "../ui/text.ts";

const OUT = {
  out: {
    type: "string",
    hint: "FILE",
    description: "write the recovery codes to a new file, 0600, and do not show them",
  },
} as const;

const ENABLE_ARGS = {
  replace: { type: "boolean", description: "replace the second factor that there is" },
  keyFile: {
    type: "string",
    hint: "FILE",
    description: "use the key in FILE, base32, which a program of yours has drawn",
  },
  codeFile: { type: "string", hint: "FILE", description: "read the code that proves that key from FILE" },
  invert: { type: "boolean", description: "QR code for a terminal with dark text on a light ground" },
  ...OUT,
} as const;

const CODES_ROOM = 1_024;

function keepCodes(file: ReservedFile | null, codes: readonly string[]): void {
  file?.write(new TextEncoder().encode(recoveryText(codes)));
}

const reserved = (path: string | null): ReservedFile | null =>
  path === null ? null : reserveNewFile(path, CODES_ROOM);

const shownCodes = (codes: readonly string[], out: string | null) => (out === null ? { codes } : { out });

const codesLines = (codes: readonly string[], out: string | null): string =>
  out === null
    ? `\n${codes.join("\n")}\n\nKeep these recovery codes apart from the authenticator: each works once, and none is shown again.`
    : `the recovery codes are in ${plain(out)}`;

/** A new factor, with the key that was given or one of this moment. @throws Fault bad_input */
function drafted(keyFile: string | null): Omit<NewFactor, "code"> {
  const made = draftFactor((length) => crypto.getRandomValues(new Uint8Array(length)));
  if (keyFile === null) return made;
  const text = readSecretFile(keyFile, 1_024, "refuse");
  const key = base32Key(new TextDecoder().decode(text).trim());
  wipe(text, made.key);
  if (key.length === FACTOR.keyBytes) return { ...made, key };
  wipe(key);
  throw new Fault("bad_input", `the key has ${FACTOR.keyBytes} bytes: 32 letters and digits of base32`);
}

async function setFactor(ctx: Context, args: Values<typeof ENABLE_ARGS>, password: Uint8Array, profile: Profile) {
  const made = drafted(args.keyFile);
  try {
    const ask = factorDialog(ctx, profile, made, args);
    let enrolled = false;
    const enrol = async (refused: Fault | null): Promise<NewFactor> => {
      enrolled = true;
      return ask(refused);
    };
    const around = { ...surroundings(ctx), factor: { ...factorSource(ctx), enrol } };
    const opening = openProfile(homeOf(ctx), { ...profile, kdf: kdfOf(ctx, profile) }, password, around, {
      keep: false,
    });
    const { client } = await ctx.term.step("Checking the password", opening);
    try {
      // the server asked for it at the login already
      const requestId = enrolled ? null : await enableWith(client, ask, args.replace);
      return { recovery: made.recovery, requestId };
    } finally {
      await client.close();
    }
  } finally {
    wipe(made.key);
  }
}

async function enableWith(
  client: KeyholdClient,
  ask: (refused: Fault | null) => Promise<NewFactor>,
  replace: boolean,
): Promise<string | null> {
  const { enabled } = await client.factor();
  if (enabled && !replace) {
    throw new Fault("exists", "the account has a second factor", { hint: "another one in its place: --replace" });
  }
  for (let refused: Fault | null = null; ; ) {
    try {
      return (await client.enableFactor({ ...(await ask(refused)), proof: null })).requestId;
    } catch (error) {
      // what was typed is no code of the key; the server ends the session after five
      if (!(error instanceof Fault) || error.code !== "factor_failed" || error === refused) throw error;
      refused = error;
    }
  }
}

export const factorEnable = defineCommand({
  args: ENABLE_ARGS,
  data: "{account, enabled, recoveryCodes: {codes:[…]} or {out}}",
  details:
    "Asks for the password, shows a key for an authenticator program (QR code, URI and base32), asks for a code of it " +
    "and gives ten recovery codes, once. Every other session of the account ends. From then on a login asks for a code " +
    "after the password. The vault on this disk opens with the password as before.",
  examples: [
    ["keyhold account factor enable", "asks everything"],
    ["keyhold account factor enable --out codes.txt", "the recovery codes as a file, to print it"],
    [
      "keyhold account factor enable --replace",
      "for a new phone: a code of the old one, or a recovery code, is asked for",
    ],
  ],
  run: async (args, ctx): Promise<Result> => {
    const profile = await activeProfile(ctx);
    if (!profile.server) throw new Fault("bad_input", "this profile has no account on a server");
    if ((args.keyFile === null) !== (args.codeFile === null)) {
      throw new Fault("usage", "--key-file and --code-file go together");
    }
    const file = reserved(args.out);
    try {
      const password = await needPassword(ctx);
      try {
        const { recovery, requestId } = await setFactor(ctx, args, password, profile);
        keepCodes(file, recovery);
        // its session has ended, with all others
        await lockAgent(agentSocket(ctx.dirs.runtime, profile.name));
        const data = { account: profile.account, enabled: true, recoveryCodes: shownCodes(recovery, args.out) };
        const human = () =>
          `${plain(profile.account ?? "")} has a second factor: a login asks for a code from now on\n${codesLines(recovery, args.out)}`;
        return result(data, human, { requestId });
      } finally {
        wipe(password);
      }
    } finally {
      file?.end();
    }
  },
});

/** Runs a change with the proof that it needs: the one that was given; none right after a login with a code; else one that is asked for. */
async function withProof<T>(
  ctx: Context,
  client: KeyholdClient,
  work: (proof: string | null) => Promise<T>,
): Promise<T> {
  const { enabled, proven } = await client.factor();
  if (!enabled || (proven && !hasUnaskedFactor(ctx))) return work(null);
  const source = factorSource(ctx);
  for (let refused: Fault | null = null; ; ) {
    const proof = await source.code(refused);
    if (proof === null) {
      throw (
        refused ??
        new Fault("factor_required", "changing the second factor needs a code of it", { hint: "--factor-file FILE" })
      );
    }
    try {
      return await work(proof);
    } catch (error) {
      if (!(error instanceof Fault) || error.code !== "factor_failed") throw error;
      refused = error;
    }
  }
}

export const factorDisable = defineCommand({
  args: {},
  data: "{disabled}, false where there was none",
  details: "Asks for a code of the authenticator, or a recovery code. A server may ask every account to keep one.",
  examples: [["keyhold account factor disable", "log in by the password alone"]],
  run: async (_args, ctx) => {
    await ctx.term.confirm("Take the second factor off the account?");
    return withClient(ctx, async (client) => {
      const { disabled, requestId } = await withProof(ctx, client, (proof) => client.disableFactor({ proof }));
      const said = disabled ? "the second factor was taken off" : "there was no second factor";
      return result({ disabled }, () => said, { requestId });
    });
  },
});

export const factorStatus = defineCommand({
  args: {},
  data: "{enabled, enabledAt, recoveryCodes, required}",
  examples: [["keyhold account factor status", "whether there is one, and how many recovery codes are left"]],
  run: async (_args, ctx) =>
    withClient(ctx, async (client) => {
      const { requestId, proven: _, ...data } = await ctx.term.step("Asking", client.factor());
      const demanded = data.required ? "; this server asks every account for one" : "";
      const said = data.enabled
        ? `second factor since ${data.enabledAt}; ${data.recoveryCodes} recovery codes are left${demanded}`
        : `no second factor${demanded}   (keyhold account factor enable)`;
      return result(data, () => said, { requestId });
    }),
});

export const factorCodes = defineCommand({
  args: OUT,
  data: "{recoveryCodes: {codes:[…]} or {out}}",
  details: "Asks for a code. The recovery codes before are void.",
  examples: [["keyhold account factor codes", "ten new ones, shown once"]],
  run: async (args, ctx) => {
    const file = reserved(args.out);
    try {
      return await withClient(ctx, async (client) => {
        const { recovery, requestId } = await withProof(ctx, client, (proof) => client.renewFactorCodes({ proof }));
        keepCodes(file, recovery);
        const data = { recoveryCodes: shownCodes(recovery, args.out) };
        return result(data, () => codesLines(recovery, args.out), { requestId });
      });
    } finally {
      file?.end();
    }
  },
});
