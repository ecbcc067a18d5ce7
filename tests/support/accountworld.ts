import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { KeyholdClient } from "../../src/client/api.ts";
import { loginNewDevice, registerAccount } from "../../src/client/enrol.ts";
import { type Home, loginProfile, openOffline, vaultPath } from "../../src/client/home.ts";
import { decodeModel, type Model } from "../../src/client/model.ts";
import { type Profile, readProfile } from "../../src/client/profile.ts";
import { readVaultFile } from "../../src/client/vaultfile.ts";
import { createServerSetup, opaqueReady } from "../../src/crypto/opaque.ts";
import { openVaultWithPassword } from "../../src/protocol/vault.ts";
import type { ServerContext } from "../../src/server/context.ts";
import { silentLog } from "../../src/server/log.ts";
import { beginIncarnation } from "../../src/server/restore.ts";
import { type Handle, startServer } from "../../src/server.ts";
import { pinOf } from "../../src/wire/pin.ts";
import { signStatement } from "../../src/wire/statement.ts";
import { opaqueKeysOf, passwordOf, random, startTestServer, type TestServer, testSurroundings } from "./harness.ts";
import { loopbackLeaf, newIdentity } from "./listener.ts";
import { type FileStore, fileStore, type HookedStore, hookedStore } from "./storeprobe.ts";

/** A home of one device, and what a person does with it. */
export interface Person {
  readonly home: Home;
  readonly notices: string[];
  profile(): Profile;
  /** A client by a fresh login; closed with the world. */
  login(password?: string): Promise<KeyholdClient>;
  /** A client over the vault alone. */
  offline(password?: string): Promise<KeyholdClient>;
  /** The vault's content, by its password. */
  model(password?: string): Promise<Model>;
}

/** A key server over HTTPS with accounts of several devices, its database open to the test. */
export interface AccountWorld {
  readonly server: TestServer;
  readonly file: FileStore;
  readonly hooked: HookedStore;
  /** Stands between clients and server; null: nobody does. */
  between: ((handle: Handle) => Handle) | null;
  register(account: string, password?: string): Promise<Person>;
  /** A further device of an account. */
  another(account: string, password?: string): Promise<Person>;
  /** A person with files of another one, copied. */
  copyOf(person: Person): Person;
  /** Serves from a copy of the database from now on, as a restore of it begins. */
  restore(path: string): Promise<TestServer>;
  /** A new OPAQUE set-up beside the one of now, as a rotation puts it there. */
  openWindow(): void;
  /** Forgets the set-up before. */
  closeWindow(): void;
  close(): Promise<void>;
}

export const PASSWORD = "a password of ada";

/** Starts one. */
export async function openAccountWorld(): Promise<AccountWorld> {
  await opaqueReady();
  const file = fileStore();
  const hooked = hookedStore();
  const identity = await newIdentity();
  const setup = createServerSetup();
  const keys = {
    identity: identity.publicKey,
    accountName: random(32),
    sealing: random(32),
    shadow: random(32),
    opaque: { id: "1", setup },
    previousSealing: null,
    previousOpaque: null,
  };
  const limits = { loginFreeFailures: 10_000, loginFreeFailuresPerAddress: 10_000 };
  const server = await startTestServer({ keys, path: file.path, wrap: hooked.wrap, limits });
  const speakFor = ({ ctx }: TestServer, number: number) =>
    Object.assign(ctx, {
      statement: () =>
        signStatement(identity, {
          number,
          expiresAtMs: Date.now() + 60_000,
          opaqueKeys: opaqueKeysOf(ctx),
          logKey: ctx.log.signers[0].publicKey,
          nextIdentity: null,
          incarnation: ctx.incarnation,
          registration: "open",
        }),
    });
  speakFor(server, 7);
  let serving = server;
  const honest: Handle = (name, contentType, body, remote) =>
    serving.dispatcher.handle(name, contentType, body, remote);
  const pin = pinOf(identity.publicKey);
  const world = { server, file, hooked, between: null as AccountWorld["between"] };
  const running = await startServer({
    listen: { host: "127.0.0.1", port: 0 },
    tls: await loopbackLeaf(identity),
    pin,
    log: silentLog,
    handle: (...request) => (world.between ? world.between(honest) : honest)(...request),
  });
  const ends: (() => Promise<unknown>)[] = [];
  const restored: TestServer[] = [];
  const personAt = (home: Home): Person => {
    const notices: string[] = [];
    const around = testSurroundings(notices);
    const profile = () => {
      const found = readProfile(home.profiles, "default");
      if (!found) throw new Error("no profile");
      return found;
    };
    const closing = (client: KeyholdClient) => {
      ends.push(() => client.close());
      return client;
    };
    return {
      home,
      notices,
      profile,
      login: async (password = PASSWORD) =>
        closing((await loginProfile(home, profile(), passwordOf(password), around, { keep: false })).client),
      offline: async (password = PASSWORD) => closing(await openOffline(home, profile(), passwordOf(password), around)),
      async model(password = PASSWORD) {
        const bytes = readVaultFile(vaultPath(home, profile()));
        if (!bytes) throw new Error("no vault");
        const { body } = await openVaultWithPassword(bytes, passwordOf(password), { allowTestKdf: true });
        return decodeModel(body);
      },
    };
  };
  const newHome = (): Home => {
    const directory = mkdtempSync(join(tmpdir(), "keyhold-people-"));
    ends.push(async () => rmSync(directory, { recursive: true, force: true }));
    return { profiles: join(directory, "config"), vaults: join(directory, "data") };
  };
  const inputOf = (account: string, password: string) => ({
    profile: "default",
    server: { url: running.url, pin, tlsCaPem: null },
    account,
    password: passwordOf(password),
    kdf: "test" as const,
  });
  const useKeys = (change: Partial<ServerContext["keys"]>) =>
    Object.assign(server.ctx, { keys: { ...server.ctx.keys, ...change } });
  return Object.assign(world, {
    async restore(path: string) {
      const back = await startTestServer({ keys: server.ctx.keys, path, limits });
      restored.push(back);
      const { incarnation } = back.ctx;
      await back.store.transaction(async (tx) => {
        await beginIncarnation(tx, identity.publicKey, incarnation, serving.ctx.incarnation, Date.now());
        await tx.putSetting("incarnation", incarnation);
      });
      await back.logbook.flush();
      speakFor(back, 8);
      serving = back;
      return back;
    },
    openWindow() {
      const { opaque } = server.ctx.keys;
      useKeys({ opaque: { id: `${opaque.id}+`, setup: createServerSetup() }, previousOpaque: opaque });
    },
    closeWindow: () => useKeys({ previousOpaque: null }),
    async register(account: string, password = PASSWORD) {
      const home = newHome();
      await registerAccount(home, { ...inputOf(account, password), invite: null }, testSurroundings());
      return personAt(home);
    },
    async another(account: string, password = PASSWORD) {
      const home = newHome();
      await (await loginNewDevice(home, inputOf(account, password), testSurroundings())).client.close();
      return personAt(home);
    },
    copyOf(person: Person) {
      const home = newHome();
      for (const part of ["profiles", "vaults"] as const) cpSync(person.home[part], home[part], { recursive: true });
      return personAt(home);
    },
    async close() {
      for (const end of ends.splice(0).reverse()) await end();
      await running.stop(0);
      for (const one of [...restored, server]) await one.close();
      file.end();
    },
  });
}
