import { describe, expect, test } from "bun:test";
import { beginCeremony } from "../../../src/protocol/federation/ceremony.ts";
import { signOrder } from "../../../src/protocol/federation/request.ts";
import { startExchange } from "../../../src/wire/federation/exchange.ts";
import { ceremonyWorld, generateTerms } from "../../support/ceremonyworld.ts";

/** Two servers' first messages and the exchange between them. */
async function begun() {
  const world = ceremonyWorld([1, 2], 2);
  const terms = generateTerms(world, "ed25519", [1, 2]);
  const random = (length: number) => world.random.bytes(length);
  const said = await Promise.all(
    [1, 2].map(async (self) => {
      const signer = world.signers.get(self);
      if (!signer) throw new Error("no signer");
      const contribution = random(32);
      const { step } = await beginCeremony({ ...terms, self, signer, beforeShare: null, contribution, random });
      return step.messages;
    }),
  );
  const [one, two] = said.map(([first]) => first);
  if (!one || !two) throw new Error("nothing was said");
  const exchange = startExchange(world.manifest, signOrder(world.requester, terms.order), [1, 2], () => false);
  return { exchange, one, two };
}

const suspectsOf = ({ exchange }: Awaited<ReturnType<typeof begun>>) =>
  [...exchange.standstill().suspects].filter(([, why]) => why.includes("not its own")).map(([index]) => index);

describe("an answer", () => {
  test("that repeats what its server has said is nothing new", async () => {
    const at = await begun();
    for (let time = 0; time < 2; time++) {
      at.exchange.hear(1, [at.one], null);
      at.exchange.hear(2, [at.two], null);
    }
    expect(suspectsOf(at)).toEqual([]);
    expect(at.exchange.standstill().said).toEqual([at.one, at.two]);
    expect(at.exchange.dueTo(1)).toEqual([at.two]);
  });

  test("that repeats what another server has said makes its server suspect", async () => {
    const at = await begun();
    at.exchange.hear(1, [at.one], null);
    at.exchange.hear(2, [at.one], null);
    expect(suspectsOf(at)).toEqual([2]);
  });

  test("that repeats a message under a signature that does not hold makes its server suspect", async () => {
    const at = await begun();
    const { message, signature } = at.one;
    at.exchange.hear(1, [at.one], null);
    at.exchange.hear(1, [{ message, signature: signature.map((byte) => byte ^ 1) }], null);
    expect(suspectsOf(at)).toEqual([1]);
  });

  test("that repeats a signature over another message makes its server suspect", async () => {
    const at = await begun();
    const { message, signature } = at.one;
    const { payload } = message;
    if (payload.round !== "commit") throw new Error("no commit");
    at.exchange.hear(1, [at.one], null);
    const other = { ...message, payload: { ...payload, sealing: payload.sealing.map((byte) => byte ^ 1) } };
    at.exchange.hear(1, [{ message: other, signature }], null);
    expect(suspectsOf(at)).toEqual([1]);
    expect(at.exchange.standstill().said).toEqual([at.one]);
  });
});
