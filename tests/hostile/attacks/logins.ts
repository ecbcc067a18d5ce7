import { expect } from "bun:test";
import { signerFromSeed } from "../../../src/crypto/identity.ts";
import { createServerSetup, serverLoginStart, serverRegister } from "../../../src/crypto/opaque.ts";
import { newId, type SessionId, type UserId } from "../../../src/ids.ts";
import { KDF } from "../../../src/protocol/defaults.ts";
import { settingsHash, signState } from "../../../src/protocol/state.ts";
import type { Reply } from "../../../src/server/dispatch.ts";
import type { Of } from "../../../src/wire/codec.ts";
import { decodeJson } from "../../../src/wire/codec.ts";
import { type loginReply, operations } from "../../../src/wire/operations.ts";
import { type Middle, random } from "../../support/harness.ts";
import { atLogin, clear } from "../../support/hostilelogin.ts";
import { type Attack, type Attempt, attacks, type End } from "../attack.ts";
import { ADA, deviceOf, entering, type Stage } from "../stage.ts";

/** Registration and login, by a machine that has nothing of the account yet. */

const AGENT = "through the agent";
const LOGIN_FAILED: End = { exit: 4, codes: ["login_failed"] };

const loggingIn = (stage: Stage, lie: Middle, ends: End = "integrity", cheap = true): Attempt => {
  const home = stage.newcomer();
  const attempt = {
    lie,
    device: deviceOf(home, AGENT),
    command: ["login", ...entering(stage, home, ADA, cheap)],
    ends,
  };
  // the account was made with the cheap key derivation: at full cost its password does not fit
  return cheap ? attempt : { ...attempt, once: true, after: async () => void (await home.login(ADA)) };
};

/** A registration of somebody else, by a machine that logs in afterwards. */
const registering = (stage: Stage, lie: Middle, cheap: boolean): Attempt => {
  const home = stage.newcomer();
  const name = stage.fresh("somebody").replace("/", "-");
  return {
    lie,
    device: deviceOf(home, AGENT),
    command: ["register", ...entering(stage, home, name, cheap)],
    ends: "integrity",
    once: true,
    holds: new Map(),
    after: async () => {
      await home.ok(["register", ...entering(stage, home, name)]);
      await home.login();
    },
  };
};

const cost =
  (change: Partial<Record<keyof typeof KDF.opaque, number>>, absolute = false) =>
  async (stage: Stage): Promise<Attempt> =>
    loggingIn(
      stage,
      clear("session.login.start", (output) => ({
        ...output,
        ksf: [{ ...(absolute ? KDF.opaqueCeiling : KDF.opaque), ...change }],
      })),
      "integrity",
      false,
    );

type LoginReply = Of<typeof loginReply>;
const own = signerFromSeed(random(32));
const answering = (edit: (reply: LoginReply) => LoginReply | Uint8Array) => async (stage: Stage) =>
  loggingIn(stage, atLogin(stage.world, edit));

/** What the answer to Eve's own login says. */
async function replyOfEve(stage: Stage): Promise<LoginReply> {
  let hers: LoginReply | undefined;
  const listening = atLogin(stage.world, (reply) => {
    hers = reply;
    return reply;
  });
  await stage.world.during(listening, () => stage.eve.device.home.login());
  if (!hers) throw new Error("eve did not log in");
  return hers;
}

const withEves = (edit: (reply: LoginReply, hers: LoginReply) => LoginReply) => async (stage: Stage) => {
  const hers = await replyOfEve(stage);
  return loggingIn(
    stage,
    atLogin(stage.world, (reply) => edit(reply, hers)),
  );
};

/** A KE2 that another OPAQUE set-up makes: of no record, since the server can make none. */
const otherSetup = (): Middle => async (operation, body, forward) => {
  if (operation !== "session.login.start") return forward(operation, body);
  const { account, request } = decodeJson(operations[operation].input, body);
  const made = serverLoginStart(createServerSetup(), random(32), account, null, request);
  return clear(operation, (output) => ({ ...output, responses: [made.response] }))(operation, body, forward);
};

export const LOGINS: readonly Attack[] = [
  ...attacks("lower the cost of key derivation", ["3.2"], {
    "less memory at login": cost({ memoryKib: KDF.opaque.memoryKib - 1 }),
    "fewer passes at login": cost({ passes: KDF.opaque.passes - 1 }),
    "next to nothing at login": cost({ memoryKib: 8, passes: 1, lanes: 1 }),
    "more memory than a client has to spend": cost({ memoryKib: 4_194_304 }, true),
    "more passes than a client has to spend": cost({ passes: 64 }, true),
    "less memory at registration": async (stage) => {
      const weak = { ...KDF.opaque, memoryKib: KDF.opaque.memoryKib - 1 };
      return registering(
        stage,
        clear("account.register.start", (output) => ({ ...output, ksf: weak })),
        false,
      );
    },
  }),
  ...attacks("present another OPAQUE key or identity", ["3.1", "3.3"], {
    "another OPAQUE key at registration": async (stage) => {
      const setup = createServerSetup();
      const lie: Middle = async (operation, body, forward) => {
        if (operation !== "account.register.start") return forward(operation, body);
        const { request } = decodeJson(operations[operation].input, body);
        const response = serverRegister(setup, random(32), request);
        return clear(operation, (output) => ({ ...output, response }))(operation, body, forward);
      };
      return registering(stage, lie, true);
    },
    "another OPAQUE set-up at login": async (stage) => loggingIn(stage, otherSetup(), LOGIN_FAILED),
    "garbage for a KE2": async (stage) =>
      loggingIn(
        stage,
        clear("session.login.start", (output) => ({ ...output, responses: [random(320)] })),
      ),
    "a server of another identity": async (stage) => {
      const home = stage.newcomer();
      const command = ["login", ...entering(stage, home, ADA)];
      const pin = stage.world.world.server.pin;
      const other = command.map((word) => (word === pin ? `sha256:${"A".repeat(43)}` : word));
      return {
        lie: null,
        device: deviceOf(home, AGENT),
        command: other,
        ends: { exit: 7, codes: ["pin_mismatch"] },
        once: true,
        after: async () => {
          await home.ok(command);
        },
      };
    },
  }),
  ...attacks("swap public keys", ["3.4", "5.1", "5.3"], {
    "the whole answer to another user's login": withEves((_reply, hers) => hers),
    "another user's settings at login": withEves((reply, hers) => ({ ...reply, settings: hers.settings })),
    "another user's settings and state at login": withEves((reply, hers) => ({
      ...reply,
      settings: hers.settings,
      head: hers.head,
    })),
    "another user's id at login": answering((reply) => ({ ...reply, userId: newId<UserId>(random) })),
    "an identity of the server's at login, with the state signed anew": answering((reply) => {
      const settings = { ...reply.settings, identity: own.publicKey };
      const state = { ...reply.head.state, settingsHash: settingsHash(settings) };
      return { ...reply, settings, head: signState(state, own, own) };
    }),
    "a state without a signature at login": answering((reply) => ({
      ...reply,
      head: { ...reply.head, identitySignature: new Uint8Array(64) },
    })),
    "an account key of the server's at login": answering((reply) => ({
      ...reply,
      settings: { ...reply.settings, wrappedAccountKey: random(reply.settings.wrappedAccountKey.length) },
    })),
    "nothing at login": answering(() => new Uint8Array(0)),
  }),
  ...attacks("complete a login twice", ["3.3"], {
    "the second half twice, and the first answer given": async (stage) => {
      const replies: Reply[] = [];
      const lie: Middle = async (operation, body, forward) => {
        const first = await forward(operation, body);
        if (operation === "session.login") replies.push(first, await forward(operation, body));
        return first;
      };
      return {
        ...loggingIn(stage, lie, "harmless"),
        after: async () => expect(replies.map(({ status }) => status)).toEqual([200, 401]),
      };
    },
    "the second half twice, and the second answer given": async (stage) => {
      const lie: Middle = async (operation, body, forward) => {
        const first = await forward(operation, body);
        return operation === "session.login" ? forward(operation, body) : first;
      };
      return loggingIn(stage, lie, LOGIN_FAILED);
    },
    "the answer to an earlier login": async (stage) => {
      const before = stage.newcomer();
      let old: Reply | undefined;
      const listening: Middle = async (operation, body, forward) => {
        const reply = await forward(operation, body);
        if (operation === "session.login") old = reply;
        return reply;
      };
      await stage.world.during(listening, () => before.ok(["login", ...entering(stage, before, ADA)]));
      const lie: Middle = async (operation, body, forward) =>
        operation === "session.login" && old ? old : forward(operation, body);
      return loggingIn(stage, lie);
    },
    "another session's name for the login": async (stage) =>
      loggingIn(
        stage,
        clear("session.login.start", (output) => ({ ...output, sessionId: newId<SessionId>(random) })),
        LOGIN_FAILED,
      ),
  }),
];
