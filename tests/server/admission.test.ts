import { afterEach, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { type Admission, admission, descriptorLimit } from "../../src/server/admission.ts";
import { silentLog } from "../../src/server/log.ts";
import { type Handle, type RunningServer, startServer } from "../../src/server.ts";
import { decodeJson } from "../../src/wire/codec.ts";
import { errorBody } from "../../src/wire/operations.ts";

const busy = expect.objectContaining({ code: "unavailable", retryAfterMs: 1_000 });

describe("requests at once", () => {
  test("are bounded for an address and for all together", () => {
    const door = admission({ total: 5, perAddress: 2 });
    for (const address of ["192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.2"]) door.enter(address);
    expect(() => door.enter("192.0.2.1")).toThrow(busy);
    expect(() => door.enter("::ffff:192.0.2.1")).toThrow(busy);
    const leave = door.enter("192.0.2.3");
    expect(() => door.enter("192.0.2.4")).toThrow(busy);
    leave();
    door.enter("192.0.2.4");
  });

  test("of one /64 count together", () => {
    const door = admission({ total: 9, perAddress: 1 });
    door.enter("2001:db8::1");
    expect(() => door.enter("2001:db8::2")).toThrow(busy);
    door.enter("2001:db8:0:1::1");
  });

  test("as many enter as leave, in any order", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.boolean(), fc.nat(3)), { maxLength: 200 }), (steps) => {
        const door = admission({ total: 6, perAddress: 3 });
        const inside: { from: number; leave: () => void }[] = [];
        for (const [enters, from] of steps) {
          if (!enters) {
            inside.splice(from, 1)[0]?.leave();
            continue;
          }
          const own = inside.filter((one) => one.from === from).length;
          if (inside.length >= 6 || own >= 3) expect(() => door.enter(`192.0.2.${from}`)).toThrow(busy);
          else inside.push({ from, leave: door.enter(`192.0.2.${from}`) });
        }
      }),
    );
  });
});

describe("the listener", () => {
  let server: RunningServer | undefined;
  afterEach(() => server?.stop(0));

  async function start(door: Admission, handle: Handle): Promise<void> {
    const listen = { host: "127.0.0.1", port: 0 };
    server = await startServer({ listen, tls: "plaintext", pin: "", log: silentLog, handle, admission: door });
  }
  const ask = (body: Bun.BodyInit = "{}") =>
    fetch(`${server?.url}/v1/op/server.statement`, {
      method: "POST",
      body,
      headers: { "content-type": "application/json" },
    });
  const ok = { status: 200, contentType: "application/json", body: "{}" };

  test("refuses what is too many with 503 and the time to wait, stays healthy, and recovers", async () => {
    const gate = Promise.withResolvers<void>();
    let entered = 0;
    await start(admission({ total: 3, perAddress: 3 }), async () => {
      entered += 1;
      await gate.promise;
      return ok;
    });
    const running = [ask(), ask(), ask()];
    while (entered < 3) await Bun.sleep(1);
    const refused = await ask();
    expect(refused.status).toBe(503);
    expect(refused.headers.get("retry-after")).toBe("1");
    expect(decodeJson(errorBody, await refused.bytes())).toMatchObject({ code: "unavailable", retryAfterMs: 1_000 });
    expect((await fetch(`${server?.url}/healthz`)).status).toBe(200);
    gate.resolve();
    for (const reply of running) expect((await reply).status).toBe(200);
    expect((await ask()).status).toBe(200);
    expect(entered).toBe(4);
  });

  test("counts a body under way, and gives its place back when it breaks off", async () => {
    await start(admission({ total: 9, perAddress: 1 }), async () => ok);
    const cut = new AbortController();
    const begun = Promise.withResolvers<void>();
    async function* slow() {
      yield new Uint8Array(10);
      begun.resolve();
      await new Promise(() => undefined);
    }
    const slowly = fetch(`${server?.url}/v1/op/server.statement`, {
      method: "POST",
      body: slow() as unknown as Bun.BodyInit,
      headers: { "content-type": "application/json" },
      signal: cut.signal,
    }).catch(() => "cut");
    await begun.promise;
    while (server?.running() === 0) await Bun.sleep(1);
    expect((await ask()).status).toBe(503);
    cut.abort();
    expect(await slowly).toBe("cut");
    while (server?.running() !== 0) await Bun.sleep(1);
    expect((await ask()).status).toBe(200);
  });
});

test.skipIf(process.platform !== "linux")("the limit of open files is the one that holds", () => {
  const soft = Bun.spawnSync(["sh", "-c", "ulimit -Sn"]).stdout.toString().trim();
  expect(String(descriptorLimit() ?? "unlimited")).toBe(soft);
});
