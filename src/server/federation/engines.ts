import { readFile, stat } from "node:fs/promises";
import { Fault } from "../../errors.ts";
import type { RemoteEngine, SignedVote } from "../../protocol/federation/policy.ts";
import { OPERATOR_SCOPE } from "../../protocol/federation/policy.ts";
import type { RemoteFiles } from "../../wire/control.ts";
import { OPERATOR, OPERATOR_ID, readStored } from "./documents.ts";
import { askRemote, type EngineTls } from "./remote.ts";
import type { AskEngines } from "./ruling.ts";
import type { FederationSite } from "./service.ts";

const PEM_MAX = 64 * 1_024;

async function pem(path: string): Promise<string> {
  if ((await stat(path)).size > PEM_MAX) throw new Fault("too_large", "a PEM file is too long");
  return readFile(path, "utf8");
}

async function tlsOf({ ca, cert, key }: RemoteFiles): Promise<EngineTls> {
  const [caPem, certPem, keyPem] = await Promise.all([pem(ca), pem(cert), pem(key)]);
  return { caPem, certPem, keyPem };
}

/**
 * Asks the engines that a policy waits for. Those of the operator's own policy are asked wherever it says; those of a
 * federation's policy, which its members write, only at addresses that the operator has listed: nobody else makes this
 * server call anything. Whoever is not asked, or does not answer, has not agreed.
 */
export function askEngines(site: FederationSite): AskEngines {
  return async (waiting, signed, _id, standing) => {
    const { ctx } = site;
    const operator = await ctx.store.transaction((tx) => readStored(tx, OPERATOR, OPERATOR_ID));
    const own = waiting.policy.head.federationId === OPERATOR_SCOPE;
    const question = {
      signed,
      certificate: standing.key?.value.certificate.certificate ?? null,
      policy: waiting.policy,
      nowMs: ctx.now(),
    };
    const ask = async (engine: RemoteEngine): Promise<SignedVote | null> => {
      const files = operator?.value.remotes.find(({ url }) => url === engine.url);
      if (!files && !own) {
        site.notify({ event: "federation.engine", engine: engine.name, why: "not_listed" });
        return null;
      }
      try {
        const answer = await askRemote(engine, question, files ? await tlsOf(files) : null);
        if (answer.vote === null) site.notify({ event: "federation.engine", engine: engine.name, why: answer.why });
        return answer.vote;
      } catch {
        site.notify({ event: "federation.engine", engine: engine.name, why: "tls_files" });
        return null;
      }
    };
    return (await Promise.all(waiting.remotes.map(ask))).filter((vote) => vote !== null);
  };
}
