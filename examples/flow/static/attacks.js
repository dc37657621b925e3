// What a thief may try with what was stolen. Each returns the exchanges, in order; the servers judge them.

import { callApi, requestToken } from "./client.js";
import { makeKey, makeProof } from "./dpop.js";
import { headerOf } from "./exchange.js";

const THIEF = "Thief";
const TEN_MINUTES = 600;

export const attacks = [
  {
    id: "replay",
    title: "Send it again",
    stolen: "a whole request out of a log: token and proof",
    story: "You call the API. The thief sends the very same request once more.",
    lesson: "Each proof has a jti of its own. The API remembers it, and takes it once.",
    async run({ pair, accessToken, accounts: url }) {
      const proof = await makeProof(pair, { method: "GET", url, accessToken });
      return [
        await callApi({ url, accessToken, proof }),
        await callApi({ from: THIEF, url, accessToken, proof }),
      ];
    },
  },
  {
    id: "bearer",
    title: "Use it as a Bearer token",
    stolen: "the access token",
    story: "The thief leaves DPoP out and presents your token as Bearer, which asks for no proof.",
    lesson: "A token that is bound to a key never passes as Bearer, or the binding would be worth nothing.",
    async run({ accessToken, accounts: url }) {
      return [await callApi({ from: THIEF, url, scheme: "Bearer", accessToken })];
    },
  },
  {
    id: "own-key",
    title: "Prove it with another key",
    stolen: "the access token",
    story: "The thief makes a key and signs a faultless proof with it.",
    lesson: "The token names the thumbprint of your key in cnf.jkt. The thief's key has another.",
    async run({ accessToken, accounts: url }) {
      const proof = await makeProof(await makeKey(), { method: "GET", url, accessToken });
      return [await callApi({ from: THIEF, url, accessToken, proof })];
    },
  },
  {
    id: "method",
    title: "Change the method",
    stolen: "the token and a proof that was never used",
    story: "The proof was made for GET. The thief would rather DELETE.",
    lesson: "The proof names its method in htm.",
    async run({ pair, accessToken, accounts: url }) {
      const proof = await makeProof(pair, { method: "GET", url, accessToken });
      return [await callApi({ from: THIEF, method: "DELETE", url, accessToken, proof })];
    },
  },
  {
    id: "url",
    title: "Change the URL",
    stolen: "the token and a proof that was never used",
    story: "The proof was made for /accounts. The thief would rather have /transfers.",
    lesson: "The proof names its URL in htu.",
    async run({ pair, accessToken, accounts, transfers: url }) {
      const proof = await makeProof(pair, { method: "GET", url: accounts, accessToken });
      return [await callApi({ from: THIEF, url, accessToken, proof })];
    },
  },
  {
    id: "old",
    title: "Use an old proof",
    stolen: "the token and a proof of ten minutes ago, never used",
    story: "The thief found the proof in a backup and hopes that it still works.",
    lesson: "A proof is fresh for about a minute after its iat.",
    async run({ pair, accessToken, accounts: url }) {
      const iat = Math.floor(Date.now() / 1000) - TEN_MINUTES;
      const proof = await makeProof(pair, { method: "GET", url, accessToken, iat });
      return [await callApi({ from: THIEF, url, accessToken, proof })];
    },
  },
  {
    id: "nonce",
    title: "Make proofs in advance",
    stolen: "the token and a stock of proofs, dated for when they are to be used",
    story: "The thief had your browser for a minute and let it sign proofs for later. /vault asks for the server's "
      + "nonce, which nobody knew then. You can answer; the proofs in stock can't.",
    lesson: "A proof with the server's nonce was made after the server gave it out. Your client asks once more with it.",
    async run({ pair, accessToken, vault: url }) {
      const stock = await makeProof(pair, { method: "GET", url, accessToken });
      const refused = await callApi({ from: THIEF, url, accessToken, proof: stock });
      if (refused.status !== 401) return [refused];
      const nonce = headerOf(refused, "dpop-nonce");
      const proof = await makeProof(pair, { method: "GET", url, accessToken, nonce });
      return [refused, await callApi({ url, accessToken, proof })];
    },
  },
  {
    id: "refresh",
    title: "Refresh with another key",
    stolen: "the refresh token",
    story: "The thief asks the authorization server for a new access token, bound to the thief's key.",
    lesson: "A public client's refresh token is bound to its key as well.",
    async run({ metadata, clientId, refreshToken }) {
      const parameters = { grant_type: "refresh_token", refresh_token: refreshToken, client_id: clientId };
      return [await requestToken(await makeKey(), { from: THIEF, metadata, parameters })];
    },
  },
];
