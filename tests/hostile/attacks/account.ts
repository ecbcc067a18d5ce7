import { signerFromSeed } from "../../../src/crypto/identity.ts";
import { type IncarnationId, newId } from "../../../src/ids.ts";
import { closedHash, type SignedState, signState, stateHash } from "../../../src/protocol/state.ts";
import { type Codec, encodeJson, type Of } from "../../../src/wire/codec.ts";
import { type loginReply, operations } from "../../../src/wire/operations.ts";
import { signStatement } from "../../../src/wire/statement.ts";
import { type Middle, random } from "../../support/harness.ts";
import { unsealed } from "../../support/hostile.ts";
import { atLogin, clear } from "../../support/hostilelogin.ts";
import { type Attack, type Attempt, attacks } from "../attack.ts";
import type { Stage } from "../stage.ts";

/** The life of an account: rotations, revocations, the end of it, and a server that says that it was restored. */

type LoginReply = Of<typeof loginReply>;
const own = signerFromSeed(random(32));

/** What the desk's login was answered before the phone renewed the account's keys. */
async function rotated(stage: Stage): Promise<LoginReply> {
  const { desk, phone, world } = stage;
  let before: LoginReply | undefined;
  const listening = atLogin(world, (reply) => {
    before = reply;
    return reply;
  });
  await world.during(listening, () => desk.home.login());
  await phone.home.ok(["account", "password", ...phone.home.password, "--rotate-key", "--keep-password"]);
  await phone.home.login();
  await stage.store(phone, stage.fresh("after"), "made with the new keys");
  if (!before) throw new Error("the desk did not log in");
  return before;
}

const following =
  (edit: (reply: LoginReply, before: LoginReply) => LoginReply) =>
  async (stage: Stage): Promise<Attempt> => {
    const before = await rotated(stage);
    const lie = atLogin(stage.world, (reply) => edit(reply, before));
    return { lie, command: ["login", ...stage.desk.home.password], whole: true, ends: "integrity" };
  };

type Rotations = LoginReply["settings"]["rotations"];
const rotations = (edit: (all: Rotations) => Rotations) =>
  following((reply) => ({ ...reply, settings: { ...reply.settings, rotations: edit(reply.settings.rotations) } }));

/** Refuses a login, and says that the account is gone. */
const closing =
  (make: (state: SignedState) => SignedState) =>
  async (stage: Stage): Promise<Attempt> => {
    const account = await stage.world.server.store.transaction((tx) => tx.account(stage.userId));
    if (!account) throw new Error("there is no account");
    const answer = { state: make(account.state), closedAtMs: Date.now() };
    const lie: Middle = async (operation, body, forward) => {
      if (operation === "session.login") return unsealed("login_failed", 401);
      if (operation !== "account.closed") return forward(operation, body);
      const codec = operations[operation].output as Codec<unknown>;
      return { status: 200, contentType: "application/json", body: encodeJson(codec, answer), outcome: "ok" };
    };
    return {
      lie,
      command: ["login", ...stage.desk.home.password],
      whole: true,
      ends: { exit: 4, codes: ["login_failed"] },
    };
  };

const last = ({ state }: SignedState) => ({
  ...state,
  revision: state.revision + 1,
  previous: stateHash(state),
  settingsHash: closedHash(state.userId),
  root: new Uint8Array(32),
});

/** A statement that names another incarnation, signed as any other. */
const restored =
  (command: (stage: Stage) => readonly string[]) =>
  async (stage: Stage): Promise<Attempt> => {
    const lie = clear("server.statement", (statement) =>
      signStatement(stage.world.identity, { ...statement, incarnation: newId<IncarnationId>(random) }),
    );
    return { lie, command: command(stage), whole: true, ends: "integrity" };
  };

export const ACCOUNT: readonly Attack[] = [
  ...attacks("undo a rotation or a revocation", ["5.7"], {
    // what a sleeping device is shown is what it knows: the next answer of the session tells it of the rotation
    "the account of before the rotation, to a device that slept": async (stage) => ({
      ...(await following((_reply, before) => before)(stage)),
      ends: "either",
    }),
    "the settings of before the rotation": following((reply, before) => ({ ...reply, settings: before.settings })),
    "the newest state of before the rotation": following((reply, before) => ({ ...reply, head: before.head })),
    "a rotation that is not told": rotations(() => []),
    "a rotation without the old identity's signature": rotations((all) =>
      all.map((one) => ({ ...one, handover: random(64) })),
    ),
    "a rotation that another identity signed": rotations((all) =>
      all.map((one) => ({ ...one, identity: own.publicKey, handover: own.sign(one.handover) })),
    ),
    "another earlier account key": rotations((all) =>
      all.map((one) => ({ ...one, wrapped: random(one.wrapped.length) })),
    ),
  }),
  ...attacks("say that the account was deleted", ["5.10"], {
    "a last state that nobody signed": closing((signed) => ({ ...signed, state: last(signed) })),
    "a last state signed by the server": closing((signed) => signState(last(signed), own, own)),
    "the newest state as the last one": closing((signed) => signed),
  }),
  ...attacks("claim a restore", ["6.5"], {
    "another incarnation, to a login": restored(({ desk }) => ["login", ...desk.home.password]),
    "another incarnation, to a list with a login of its own": restored(({ desk }) => [
      "list",
      "--fresh",
      ...desk.home.password,
    ]),
  }),
];
