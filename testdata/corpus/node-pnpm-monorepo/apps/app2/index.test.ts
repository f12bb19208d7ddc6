test('app2');
