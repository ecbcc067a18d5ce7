import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import type { FederatedCaller } from "../../../src/server/context.ts";
import { createDistribution } from "../../../src/server/otp/index.ts";
import { HOTP } from "../otp/world.ts";
import { type CeremonyServer, ceremonyServer, finished, opened, statusOf } from "./world.ts";

let server: CeremonyServer;
beforeEach(async () => {
  server = await ceremonyServer();
});
afterEach(() => server.close());

describe("the place of a ceremony's key in the store", () => {
  test("cannot be taken by a one-time password whose nonce is the ceremony's id", async () => {
    const run = await opened(server, 2);
    Object.assign(server.site.ctx, { incarnation: "1".repeat(32) });
    const distribution = createDistribution(server.site);
    const caller = { account: server.account(3), concerns: () => undefined } as unknown as FederatedCaller;
    const nonce = Uint8Array.fromHex(run.id);
    await distribution["otp.create"](caller, { name: "squatter", output: HOTP, nonce, value: null });
    await finished(server, run);
    expect(await statusOf(server, run)).toBe("stored");
  });
});
