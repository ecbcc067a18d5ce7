import { existsSync } from "node:fs";
import { expectExit, expectThat, type Step, type Walk, type World } from "../ui/demo.ts";
import { allJoin, keeper, oathtool, opened, peopleOf, stepsFor } from "./democeremony.ts";
import { text } from "./demofederation.ts";

/** A ceremony from its beginning to its stored end; gives its id. */
async function held(world: World, name: string, ...output: string[]): Promise<string> {
  const { id, invites } = await opened(world, name, ...output);
  for (const end of await allJoin(world, invites)) expectExit(end);
  return id;
}

const TOTP: Step = {
  title: "a one-time password in another authenticator",
  shown: "keyhold otp issue mail --to keeper --provision; keyhold otp request mail --provision; oathtool --totp …",
  async run(world) {
    await held(world, "mail", "--output", "totp", "--issuer", "demo", "--label", "mail");
    expectExit(await keeper(world, "otp", "issue", "mail", "--to", "keeper", "--provision"));
    const uri = text(expectExit(await keeper(world, "otp", "request", "mail", "--provision")), "value");
    const codes = await oathtool(uri, "--totp");
    if (!codes) return "handed out once   (oathtool is not installed here: no code was made)";
    const verify = () => keeper(world, "otp", "verify", "mail", "--in-file", world.file("totp", codes[0]));
    const verdict = text(expectExit(await verify()), "verdict");
    expectThat(verdict === "accepted", "the server accepts oathtool's code");
    expectThat((await verify()).exit !== 0, "and accepts it once");
    return `oathtool says ${codes[0]}: accepted, once`;
  },
};

const RSA: Step = {
  title: "an RSA key",
  shown: "keyhold ceremony open seal --output rsa --bits 2048 …; openssl rsa -check",
  async run(world) {
    const id = await held(world, "seal", "--output", "rsa", "--bits", "2048", "--collect", "organiser");
    expectExit(await keeper(world, "ceremony", "collect", id, "--store", "seal"));
    const pem = world.file("seal.pem");
    expectExit(await keeper(world, "export", "seal", "--to", "pem", "--out", pem));
    if (!existsSync("/usr/bin/openssl")) return "made and exported   (openssl is not installed here: not checked)";
    const check = Bun.spawn(["/usr/bin/openssl", "rsa", "-check", "-noout", "-in", pem], {
      stdout: "pipe",
      stderr: "ignore",
    });
    const [said, code] = await Promise.all([check.stdout.text(), check.exited]);
    expectThat(code === 0 && said.includes("RSA key ok"), "openssl finds the key sound");
    return "openssl: RSA key ok";
  },
};

const QUORUM: Step = {
  title: "three must agree before the value leaves",
  shown: "keyhold ceremony open …  --collect participants --quorum 3; keyhold ceremony approve …",
  async run(world) {
    const id = await held(world, "shared", "--output", "bytes", "--collect", "participants", "--quorum", "3");
    expectExit(await world.run("ann", ["ceremony", "collect", id, "--store", "shared"]), 9);
    for (const name of peopleOf(world).slice(1, 4))
      expectExit(await world.run(name, ["ceremony", "approve", id, "--yes"]));
    expectExit(await world.run("ann", ["ceremony", "collect", id, "--store", "shared"]));
    return "ann has it after ben, cleo and dan have signed";
  },
};

const WALLET: Step = {
  title: "a wallet of five keys",
  shown: "keyhold ceremony open wallet --output multisig --threshold 3 --network regtest …",
  async run(world) {
    const { p2ms, p2wsh, Transaction } = await import("@scure/btc-signer");
    const id = await held(world, "wallet", "--output", "multisig", "--threshold", "3", "--network", "regtest");
    const { data } = expectExit(await keeper(world, "ceremony", "status", id));
    const { descriptor, custody } = data["result"] as { descriptor: string; custody: string };
    expectThat(custody === "self-custodial", "the server has no key of it");
    const points = [...descriptor.matchAll(/[0-9a-f]{66}/g)].map(([hex]) => Uint8Array.fromHex(hex));
    expectThat(points.length === peopleOf(world).length, "one key a participant");
    const sorted = points.sort((a, b) => Buffer.compare(a, b));
    const wallet = p2wsh(p2ms(3, sorted));
    const tx = new Transaction();
    const witnessUtxo = { script: wallet.script, amount: 100_000n };
    tx.addInput({ txid: "11".repeat(32), index: 0, witnessUtxo, witnessScript: wallet.witnessScript });
    tx.addOutput({ script: wallet.script, amount: 99_000n });
    for (const name of peopleOf(world).slice(0, 3)) {
      expectExit(await world.run(name, ["ceremony", "collect", id, "--store", "wallet"]));
      const file = world.file(`${name}.key`);
      expectExit(await world.run(name, ["export", "wallet", "--to", "raw", "--out", file]));
      tx.signIdx(await Bun.file(file).bytes(), 0);
    }
    tx.finalize();
    return `${descriptor.slice(0, 60)}…\nspent by ann, ben and cleo: transaction ${tx.id}`;
  },
};

const RESTART: Step = {
  title: "the server is killed between commit and open",
  shown: "keyhold ceremony join … --no-wait; kill -9 …; keyhold ceremony join --ceremony …",
  async run(world) {
    const { id, invites } = await opened(world, "survivor", "--output", "p256");
    expectThat(
      (await allJoin(world, invites, peopleOf(world))).every(({ exit }) => exit === 9),
      "all have committed and wait",
    );
    await world.server.kill();
    await world.server.start();
    const again = (name: string) => world.run(name, ["ceremony", "join", "--ceremony", id]);
    for (const end of await Promise.all(peopleOf(world).map(again))) expectExit(end);
    const { data } = expectExit(await keeper(world, "ceremony", "status", id));
    expectThat(data["status"] === "stored", "it went on where it was");
    return "went on where it was";
  },
};

/** All that ceremonies can do. */
export const CEREMONY_FULL: Walk = {
  servers: 2,
  steps: [...stepsFor(["ann", "ben", "cleo", "dan", "eve"]), TOTP, RSA, QUORUM, WALLET, RESTART],
};
