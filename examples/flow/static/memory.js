// What must outlive the visit to the authorization server: the key pair, and the steps so far.

const KEYS = "keys";

function open() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open("flow", 1);
    request.onupgradeneeded = () => request.result.createObjectStore(KEYS);
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

async function inKeys(mode, work) {
  const database = await open();
  try {
    return await new Promise((resolve, reject) => {
      const transaction = database.transaction(KEYS, mode);
      const request = work(transaction.objectStore(KEYS));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onerror = () => reject(transaction.error);
      transaction.onabort = () => reject(transaction.error);
    });
  } finally {
    database.close();
  }
}

/** IndexedDB stores a handle to the key, not the key: it stays as unreadable as it was. */
export const saveKey = (pair) => inKeys("readwrite", (keys) => keys.put(pair, "client"));
export const loadKey = () => inKeys("readonly", (keys) => keys.get("client"));
export const forgetKey = () => inKeys("readwrite", (keys) => keys.delete("client"));

export const saveSteps = (steps) => sessionStorage.setItem("steps", JSON.stringify(steps));
export const loadSteps = () => JSON.parse(sessionStorage.getItem("steps") ?? "{}");
export const forgetSteps = () => sessionStorage.removeItem("steps");
