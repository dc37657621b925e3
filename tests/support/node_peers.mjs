// DPoP clients and a judge of proofs, written by others. One JSON object a line comes in, one goes out:
// {"do": name, ...arguments} is answered by {"returned": value} or {"thrown": text}.
import { createHash } from 'node:crypto';
import { createInterface } from 'node:readline';
import { JoseKey } from '@atproto/jwk-jose';
import { OAuthSession } from '@atproto/oauth-client';
import * as jose from 'jose';
import * as oauth from 'oauth4webapi';
import * as openid from 'openid-client';

const clients = new Map();

class OpenIDClient {
  static async create({ algorithm, issuer }) {
    const config = issuer
      ? await openid.discovery(
          new URL(issuer), 'machine', undefined, openid.ClientSecretBasic('s3cret:/+'),
          { execute: [openid.allowInsecureRequests] },
        )
      : new openid.Configuration({ issuer: 'https://auth.example.test' }, 'my_client');
    openid.allowInsecureRequests(config);
    // The private key can't be extracted, as in a browser.
    const pair = await openid.randomDPoPKeyPair(algorithm, { extractable: false });
    return new OpenIDClient(config, openid.getDPoPHandle(config, pair));
  }

  constructor(config, handle) {
    Object.assign(this, { config, DPoP: handle });
  }

  thumbprint() {
    return this.DPoP.calculateThumbprint();
  }

  async token({ resource, scope }) {
    const { DPoP } = this;
    return openid.clientCredentialsGrant(this.config, { resource, scope }, { DPoP });
  }

  async call({ token, method, url, body }) {
    try {
      const { DPoP } = this;
      return await openid.fetchProtectedResource(
        this.config, token, new URL(url), method, body, undefined, { DPoP },
      );
    } catch (error) {
      if (error instanceof openid.WWWAuthenticateChallengeError) {
        return Object.assign(error.response, { challenges: error.cause });
      }
      throw error;
    }
  }
}

class AtprotoClient {
  static async create({ algorithm }) {
    return new AtprotoClient(await JoseKey.generate([algorithm]), algorithm);
  }

  // What a session needs of a server that it got its tokens from.
  constructor(dpopKey, algorithm) {
    const nonces = new Map();
    this.server = {
      dpopKey,
      dpopNonces: { get: (origin) => nonces.get(origin), set: (origin, nonce) => nonces.set(origin, nonce) },
      runtime: { sha256: async (text) => createHash('sha256').update(text).digest('base64url') },
      serverMetadata: { dpop_signing_alg_values_supported: [algorithm] },
    };
  }

  thumbprint() {
    return jose.calculateJwkThumbprint(this.server.dpopKey.bareJwk);
  }

  call({ token, method, url, body }) {
    const tokenSet = { aud: new URL(url).origin, token_type: 'DPoP', access_token: token };
    const session = new OAuthSession(this.server, 'did:example:1', {
      getSession: async () => ({ tokenSet }),
      delStored: async () => {},
    });
    return session.fetchHandler(url, { method, body });
  }
}

const kinds = { 'openid-client': OpenIDClient, '@atproto/oauth-client': AtprotoClient };

const actions = {
  async create({ client, kind, ...options }) {
    clients.set(client, await kinds[kind].create(options));
    return clients.get(client).thumbprint();
  },

  async token({ client, ...request }) {
    return clients.get(client).token(request);
  },

  async call({ client, ...request }) {
    const response = await clients.get(client).call(request);
    const { status, challenges = null } = response;
    return { status, challenges, body: response.bodyUsed ? null : await response.text() };
  },

  // Judges a request as a resource server of oauth4webapi would; returns the token's claims.
  async judge({ issuer, jwks, audience, method, url, token, proof, algorithm }) {
    const request = new Request(url, { method, headers: { authorization: `DPoP ${token}`, dpop: proof } });
    return oauth.validateJwtAccessToken({ issuer, jwks_uri: `${issuer}/jwks` }, request, audience, {
      requireDPoP: true,
      signingAlgorithms: [algorithm],
      [oauth.customFetch]: async () => Response.json(jwks),
    });
  },

  // From a 401 alone: what its challenge names, what oauth4webapi asks for, and the issuer that it finds.
  async discover({ url, resource }) {
    const options = { [oauth.allowInsecureRequests]: true };
    const { DPoP } = await openid.randomDPoPKeyPair('ES256').then((pair) => ({ DPoP: oauth.DPoP({}, pair) }));
    let named;
    try {
      await oauth.protectedResourceRequest('no-token', 'GET', new URL(url), undefined, undefined, {
        ...options, DPoP,
      });
    } catch (error) {
      named = error.cause[0].parameters.resource_metadata;
    }
    const identifier = new URL(resource);
    const response = await oauth.resourceDiscoveryRequest(identifier, options);
    const metadata = await oauth.processResourceDiscoveryResponse(identifier, response);
    const issuer = new URL(metadata.authorization_servers[0]);
    const found = await oauth.discoveryRequest(issuer, { ...options, algorithm: 'oauth2' });
    const server = await oauth.processDiscoveryResponse(issuer, found);
    return { named, asked: response.url, metadata, issuer: server.issuer };
  },

  // An access token, and the JWK Set that verifies it, by the package jose.
  async sign({ algorithm, claims }) {
    const { privateKey, publicKey } = await jose.generateKeyPair(algorithm);
    const token = await new jose.SignJWT(claims)
      .setProtectedHeader({ alg: algorithm, typ: 'at+jwt', kid: 'its key' })
      .sign(privateKey);
    return { token, jwks: { keys: [{ ...(await jose.exportJWK(publicKey)), kid: 'its key' }] } };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { do: action, ...options } = JSON.parse(line);
  let answer;
  try {
    answer = { returned: (await actions[action](options)) ?? null };
  } catch (error) {
    answer = { thrown: `${error}: ${error.cause?.stack ?? JSON.stringify(error.cause)}` };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
process.exit(); // whatever connections are kept open
